//! Reaching for the real world ends the run with a verdict that names the replacement.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use moonpool_foundation::{SimWorld, SimulationError, TaskProvider, TimeProvider};

fn escape_of(future: impl Future<Output = ()> + 'static) -> String {
    let world = SimWorld::new();
    let task = world
        .add_process("node")
        .task_provider()
        .spawn_task("culprit", future);
    match world.block_on(task).unwrap_err() {
        SimulationError::Escape(text) => text,
        other => panic!("not an escape: {other}"),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the escape under test")]
fn tokios_sleep_is_an_escape() {
    let text = escape_of(async { tokio::time::sleep(Duration::from_secs(1)).await });
    assert!(
        text.contains("TimeProvider::sleep") && text.contains("`culprit`"),
        "{text}"
    );
}

#[test]
fn tokios_sockets_are_an_escape() {
    let text = escape_of(async {
        drop(tokio::net::TcpStream::connect("127.0.0.1:9").await);
    });
    assert!(text.contains("NetworkProvider::connect"), "{text}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the escape under test")]
fn tokios_spawn_is_an_escape() {
    let text = escape_of(async {
        tokio::spawn(async {});
    });
    assert!(text.contains("use TaskProvider::spawn_task"), "{text}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the escape under test")]
fn tokios_spawn_local_is_an_escape() {
    let text = escape_of(async {
        tokio::task::spawn_local(async {});
    });
    assert!(
        text.contains("spawn_local was used: use TaskProvider::spawn_task"),
        "{text}"
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the escape under test")]
fn tokios_blocking_pool_is_an_escape() {
    let text = escape_of(async {
        drop(tokio::task::spawn_blocking(|| ()).await);
    });
    assert!(text.contains("use TaskProvider::run_blocking"), "{text}");
}

#[test]
fn a_wake_from_another_thread_is_an_escape() {
    struct WokenAbroad(bool);
    impl Future for WokenAbroad {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.0 {
                return Poll::Ready(());
            }
            self.0 = true;
            let waker = cx.waker().clone();
            std::thread::spawn(move || waker.wake()).join().unwrap();
            Poll::Pending
        }
    }
    let text = escape_of(WokenAbroad(false));
    assert!(
        text.contains("another thread") && text.contains("run_blocking"),
        "{text}"
    );
    // The main future of block_on is watched as well.
    let error = SimWorld::new().block_on(WokenAbroad(false)).unwrap_err();
    assert!(matches!(error, SimulationError::Escape(_)), "{error}");
}

#[test]
fn a_wake_that_comes_too_late_is_not_held_against_the_next_world() {
    let keep = Arc::new(Mutex::new(None));
    let world = SimWorld::new();
    world.task_provider().spawn_task("late", {
        let keep = Arc::clone(&keep);
        std::future::poll_fn(move |cx| -> Poll<()> {
            *keep.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        })
    });
    world.run_until_empty().unwrap();
    let wake = |waker: Waker| {
        std::thread::spawn(move || waker.wake()).join().unwrap();
    };
    let waker = keep.lock().unwrap().take().unwrap();
    let unseen = waker.clone();
    // Once before the world ends, when nobody drives it any more, and once after its end.
    wake(waker);
    drop(world);
    wake(unseen);
    let next = SimWorld::new();
    let time = next.time_provider();
    next.block_on(async move { time.sleep(Duration::from_secs(1)).await })
        .unwrap();
}

#[test]
fn blocking_on_another_runtime_is_an_escape() {
    let world = SimWorld::new();
    let time = world.time_provider();
    let task = world.task_provider().spawn_task("culprit", async move {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(time.sleep(Duration::from_secs(1)));
    });
    let error = world.block_on(task).unwrap_err();
    assert!(
        matches!(&error, SimulationError::Escape(text) if text.contains("another runtime")),
        "{error}"
    );
}

#[test]
fn a_world_driven_from_a_tokio_runtime_says_what_to_do_instead() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let error = runtime
        .block_on(async { SimWorld::new().block_on(async {}) })
        .unwrap_err();
    assert!(
        matches!(&error, SimulationError::Escape(text) if text.contains("#[test]")),
        "{error}"
    );
}

#[test]
fn a_world_driven_from_inside_a_simulated_task_is_refused() {
    let outer = SimWorld::new();
    let error = outer
        .block_on(async { SimWorld::new().block_on(async {}) })
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, SimulationError::Escape(_)), "{error}");
}
