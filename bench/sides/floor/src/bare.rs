//! The bare loop: a clock, a heap of events, tasks that are ready, pipes of bytes.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use async_task::{Runnable, Task};
use bench_common::Numbers;

enum Event {
    Wake(Waker),
    Deliver { pipe: u32, length: u32 },
}

/// What was written and not read; the first `arrived` bytes of it can be.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    arrived: usize,
    reader: Option<Waker>,
}

impl Pipe {
    fn take(&mut self, out: &mut [u8]) {
        let (first, second) = self.bytes.as_slices();
        match first.get(..out.len()) {
            Some(whole) => out.copy_from_slice(whole),
            None => {
                let (front, back) = out.split_at_mut(first.len());
                front.copy_from_slice(first);
                back.copy_from_slice(&second[..back.len()]);
            }
        }
        self.arrived -= out.len();
        if self.bytes.len() == out.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..out.len());
        }
    }
}

struct World {
    now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    pipes: Vec<Pipe>,
    ready: Vec<Runnable>,
    order: Numbers,
    digest: u64,
}

impl World {
    fn schedule(&mut self, at: u64, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot as usize] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, slot)));
    }

    fn fold(&mut self, value: u64) {
        self.digest = (self.digest.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World {
        now: 0,
        sequence: 0,
        heap: BinaryHeap::new(),
        events: Vec::new(),
        free: Vec::new(),
        pipes: Vec::new(),
        ready: Vec::new(),
        order: Numbers::new(1),
        digest: 0,
    });
}

fn with<R>(body: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(body)
}

pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let schedule = |runnable| with(|world| world.ready.push(runnable));
    let (runnable, task) = async_task::spawn_local(future, schedule);
    runnable.schedule();
    task
}

/// What is to happen next.
enum Next {
    Run(Runnable),
    Wake(Waker),
    Nothing,
    End,
}

impl World {
    /// A task that is ready, drawn among them; when none is, what the next event asks for.
    fn next(&mut self) -> Next {
        let index = match self.ready.len() {
            0 => return self.advance(),
            1 => 0,
            several => (self.order.next() % several as u64) as usize,
        };
        self.fold(index as u64);
        Next::Run(self.ready.swap_remove(index))
    }

    fn advance(&mut self) -> Next {
        let Some(Reverse((at, sequence, slot))) = self.heap.pop() else {
            return Next::End;
        };
        self.now = at;
        self.fold(at ^ sequence);
        self.free.push(slot);
        let waker = match self.events[slot as usize].take() {
            Some(Event::Wake(waker)) => Some(waker),
            Some(Event::Deliver { pipe, length }) => self.deliver(pipe, length as usize),
            None => None,
        };
        waker.map_or(Next::Nothing, Next::Wake)
    }

    fn deliver(&mut self, pipe: u32, length: usize) -> Option<Waker> {
        let pipe = &mut self.pipes[pipe as usize];
        pipe.arrived += length;
        pipe.reader.take()
    }
}

/// Runs until nothing is left to happen, and gives the digest.
pub fn run() -> u64 {
    loop {
        match with(World::next) {
            Next::Run(runnable) => {
                runnable.run();
            }
            Next::Wake(waker) => waker.wake(),
            Next::Nothing => {}
            Next::End => return with(|world| world.digest),
        }
    }
}

pub fn pipe() -> u32 {
    with(|world| {
        world.pipes.push(Pipe::default());
        (world.pipes.len() - 1) as u32
    })
}

/// `bytes` arrive `after` nanoseconds later.
pub fn write(pipe: u32, bytes: &[u8], after: u64) {
    with(|world| {
        world.pipes[pipe as usize].bytes.extend(bytes);
        let length = bytes.len() as u32;
        world.schedule(world.now + after, Event::Deliver { pipe, length });
    });
}

/// Waits until as many bytes are there, and takes them.
pub async fn read_exact(pipe: u32, bytes: &mut [u8]) {
    poll_fn(|context| {
        with(|world| {
            let pipe = &mut world.pipes[pipe as usize];
            if pipe.arrived < bytes.len() {
                match &mut pipe.reader {
                    Some(reader) => reader.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            pipe.take(bytes);
            Poll::Ready(())
        })
    })
    .await;
}

pub async fn sleep(nanos: u64) {
    let deadline = with(|world| world.now + nanos);
    let mut queued = false;
    poll_fn(|context| {
        with(|world| {
            if world.now >= deadline {
                return Poll::Ready(());
            }
            if !queued {
                queued = true;
                world.schedule(deadline, Event::Wake(context.waker().clone()));
            }
            Poll::Pending
        })
    })
    .await;
}

pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
