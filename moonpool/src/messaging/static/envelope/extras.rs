//! What a request carries beside its message: as the caller collects it, and as the server keeps it.

use bytes::BufMut;

use super::{MAX_METADATA_BYTES, MAX_METADATA_PAIRS, MessageHead, Metadata, TraceContext};

/// Metadata and trace context that a request is to carry, as they are collected: bounded, and
/// encoded already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    pairs: u16,
    /// The pairs, as they travel.
    bytes: Vec<u8>,
    trace: Option<OwnedTrace>,
    /// Something did not fit: the request must not leave without it.
    is_too_large: bool,
}

#[derive(Clone, Debug)]
struct OwnedTrace {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
    state: Vec<u8>,
}

impl Extras {
    /// Adds a pair.
    pub(crate) fn push(&mut self, key: &str, value: &[u8]) {
        let fits = usize::from(self.pairs) < MAX_METADATA_PAIRS
            && self.size().saturating_add(6 + key.len() + value.len()) <= MAX_METADATA_BYTES;
        let lengths = (u16::try_from(key.len()), u32::try_from(value.len()));
        let (true, (Ok(key_length), Ok(value_length))) = (fits, lengths) else {
            self.is_too_large = true;
            return;
        };
        self.pairs += 1;
        self.bytes.put_u16_le(key_length);
        self.bytes.put_slice(key.as_bytes());
        self.bytes.put_u32_le(value_length);
        self.bytes.put_slice(value);
    }

    /// Sets the trace context.
    pub(crate) fn set_trace(&mut self, trace: &TraceContext<'_>) {
        self.trace = None;
        if self.size().saturating_add(trace.state.len()) > MAX_METADATA_BYTES {
            self.is_too_large = true;
            return;
        }
        self.trace = Some(OwnedTrace {
            trace_id: trace.trace_id,
            parent_id: trace.parent_id,
            flags: trace.flags,
            state: trace.state.to_vec(),
        });
    }

    /// Sets the trace context of the request on whose behalf a call is made: without its state if
    /// that does not fit.
    pub(crate) fn inherit_trace(&mut self, trace: &TraceContext<'_>) {
        let fits = self.size().saturating_add(trace.state.len()) <= MAX_METADATA_BYTES;
        let state = if fits { trace.state } else { &[] };
        self.set_trace(&TraceContext { state, ..*trace });
    }

    /// Whether all of it is within the limits.
    pub(crate) fn fits(&self) -> bool {
        !self.is_too_large
    }

    /// The pairs, to be written.
    pub(crate) fn metadata(&self) -> Metadata<'_> {
        Metadata {
            pairs: self.pairs,
            bytes: &self.bytes,
        }
    }

    /// The trace context, to be written.
    pub(crate) fn trace(&self) -> Option<TraceContext<'_>> {
        let trace = self.trace.as_ref()?;
        Some(TraceContext {
            trace_id: trace.trace_id,
            parent_id: trace.parent_id,
            flags: trace.flags,
            state: &trace.state,
        })
    }

    fn size(&self) -> usize {
        let trace = self.trace.as_ref().map_or(0, |trace| trace.state.len());
        self.bytes.len() + trace
    }
}

/// What a request carried beside its message, kept for as long as its answer is owed: a copy, since
/// that can be long, and the block that was read is large.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pairs: u16,
    /// The pairs, then the trace's state.
    bytes: Box<[u8]>,
    /// Where the state begins.
    pairs_end: usize,
    trace: Option<KeptTrace>,
}

#[derive(Clone, Debug)]
struct KeptTrace {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl RequestContext {
    /// `None` if there is nothing to keep.
    #[inline]
    pub(crate) fn of(head: &MessageHead<'_>) -> Option<Self> {
        if head.metadata.is_empty() && head.trace.is_none() {
            None
        } else {
            Some(Self::kept(head))
        }
    }

    fn kept(head: &MessageHead<'_>) -> Self {
        let state = head.trace.map_or(&[][..], |trace| trace.state);
        Self {
            pairs: head.metadata.pairs,
            bytes: [head.metadata.bytes, state].concat().into_boxed_slice(),
            pairs_end: head.metadata.bytes.len(),
            trace: head.trace.map(|trace| KeptTrace {
                trace_id: trace.trace_id,
                parent_id: trace.parent_id,
                flags: trace.flags,
            }),
        }
    }

    pub(crate) fn metadata(&self) -> Metadata<'_> {
        Metadata {
            pairs: self.pairs,
            bytes: self.bytes.get(..self.pairs_end).unwrap_or_default(),
        }
    }

    pub(crate) fn trace(&self) -> Option<TraceContext<'_>> {
        let trace = self.trace.as_ref()?;
        Some(TraceContext {
            trace_id: trace.trace_id,
            parent_id: trace.parent_id,
            flags: trace.flags,
            state: self.bytes.get(self.pairs_end..).unwrap_or_default(),
        })
    }
}
