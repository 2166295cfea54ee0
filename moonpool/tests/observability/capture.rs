//! A subscriber that keeps what one thread said.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    events: Vec<Said>,
    entered: Vec<u64>,
}

/// A span, with what was recorded last in each field.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub name: &'static str,
    pub fields: BTreeMap<&'static str, String>,
    pub parent: Option<usize>,
    pub target: String,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub level: tracing::Level,
    pub target: String,
    pub fields: BTreeMap<&'static str, String>,
}

impl Said {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// Keeps everything in the thread's own memory.
struct Capture;

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::new();
        span.record(&mut Fields(&mut fields));
        SEEN.with_borrow_mut(|seen| {
            let parent = seen.entered.last().map(|id| *id as usize - 1);
            let metadata = span.metadata();
            seen.spans.push(Span {
                name: metadata.name(),
                fields,
                parent,
                target: metadata.target().to_owned(),
            });
            Id::from_u64(seen.spans.len() as u64)
        })
    }
    fn record(&self, id: &Id, values: &Record<'_>) {
        SEEN.with_borrow_mut(|seen| {
            let span = &mut seen.spans[id.into_u64() as usize - 1];
            values.record(&mut Fields(&mut span.fields));
        });
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let metadata = event.metadata();
        SEEN.with_borrow_mut(|seen| {
            seen.events.push(Said {
                level: *metadata.level(),
                target: metadata.target().to_owned(),
                fields,
            });
        });
    }
    fn enter(&self, id: &Id) {
        SEEN.with_borrow_mut(|seen| seen.entered.push(id.into_u64()));
    }
    fn exit(&self, id: &Id) {
        // Spans that are held entered across an await would end in another order.
        let left = SEEN.with_borrow_mut(|seen| seen.entered.pop());
        assert_eq!(left, Some(id.into_u64()), "spans are left in another order");
    }
}

/// Runs it with everything kept, from nothing on.
pub(crate) fn captured<R>(body: impl FnOnce() -> R) -> R {
    forget();
    tracing::subscriber::with_default(Capture, body)
}

/// Forgets what was said, which spans are entered apart. Spans of before must not be used after.
pub(crate) fn forget() {
    SEEN.take();
}

/// The spans with this name, in the order of their beginnings.
pub(crate) fn spans(name: &str) -> Vec<Span> {
    let all = SEEN.with_borrow(|seen| seen.spans.clone());
    all.into_iter().filter(|span| span.name == name).collect()
}

/// The span around this one.
pub(crate) fn parent(span: &Span) -> Option<Span> {
    SEEN.with_borrow(|seen| Some(seen.spans[span.parent?].clone()))
}

/// What was said with this message.
pub(crate) fn events(message: &str) -> Vec<Said> {
    let all = SEEN.with_borrow(|seen| seen.events.clone());
    all.into_iter()
        .filter(|said| said.field("message") == message)
        .collect()
}

/// A test of each name in each world, with what is said kept.
#[macro_export]
macro_rules! captured_in_both_worlds {
    ($($name:ident: $seeds:expr;)*) => {
        $(mod $name {
            #[test]
            fn real() {
                $crate::capture::captured(|| $crate::common::on_tokio(super::$name));
            }

            #[cfg(feature = "sim")]
            #[test]
            fn simulated() {
                $crate::capture::captured(|| {
                    $crate::common::in_simulation($seeds, |hosts| {
                        $crate::capture::forget();
                        super::$name(hosts)
                    });
                });
            }
        })*
    };
}
