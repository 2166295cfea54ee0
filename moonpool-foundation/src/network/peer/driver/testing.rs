//! What the tests of the driver share: a stream that is written by hand, and a waker that is looked at.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::network::TcpStreamTrait;

/// What there is to read: these bytes, so many times.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    times: usize,
    /// Bytes that were read this time.
    read: usize,
}

/// A stream that has to read what it is given, and takes every write at once, and keeps it.
#[derive(Clone, Default)]
pub(super) struct TestStream {
    incoming: Rc<RefCell<Incoming>>,
    writes: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl TestStream {
    /// There are these bytes to read, so many times.
    pub(super) fn repeating(bytes: Vec<u8>, times: usize) -> Self {
        let stream = Self::default();
        *stream.incoming.borrow_mut() = Incoming {
            bytes,
            times,
            read: 0,
        };
        stream
    }

    /// These bytes arrive, when everything before them was read.
    pub(super) fn receive(&self, bytes: &[u8]) {
        let mut incoming = self.incoming.borrow_mut();
        assert_eq!(incoming.times, 0, "it is read first");
        incoming.bytes = bytes.to_vec();
        incoming.times = 1;
    }

    /// What was written since the last call.
    pub(super) fn take_written(&self) -> Vec<u8> {
        self.writes.take().concat()
    }

    /// How many bytes each write had.
    pub(super) fn write_sizes(&self) -> Vec<usize> {
        self.writes.borrow().iter().map(Vec::len).collect()
    }
}

impl AsyncRead for TestStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut incoming = self.incoming.borrow_mut();
        if incoming.times == 0 {
            return Poll::Pending;
        }
        while incoming.times > 0 && buffer.remaining() > 0 {
            let rest = &incoming.bytes[incoming.read..];
            let count = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..count]);
            incoming.read = (incoming.read + count) % incoming.bytes.len();
            incoming.times -= usize::from(incoming.read == 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("the driver writes vectored");
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let bytes = written.len();
        self.writes.borrow_mut().push(written);
        Poll::Ready(Ok(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TcpStreamTrait for TestStream {
    fn local_addr(&self) -> io::Result<String> {
        Ok("here".into())
    }
    fn peer_addr(&self) -> io::Result<String> {
        Ok("there".into())
    }
    fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Whether somebody was woken.
#[derive(Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    /// One that is not, and what wakes it.
    pub(super) fn new() -> (Arc<Self>, Waker) {
        let flag = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&flag));
        (flag, waker)
    }

    /// Whether it was woken since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that is not to end, in a task of its own.
pub(super) struct Endless<F> {
    future: Pin<Box<F>>,
    woken: Arc<Flag>,
    waker: Waker,
}

impl<F: Future> Endless<F> {
    pub(super) fn new(future: F) -> Self {
        let (woken, waker) = Flag::new();
        Self {
            future: Box::pin(future),
            woken,
            waker,
        }
    }

    /// Polls it. Whether it asks for another turn.
    pub(super) fn poll(&mut self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        assert!(self.future.as_mut().poll(&mut cx).is_pending());
        self.woken.take()
    }
}
