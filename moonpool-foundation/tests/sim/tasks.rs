//! Tasks: their handles, their order, their panics.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use moonpool_foundation::{
    JoinError, JoinHandle, KillKind, SchedulePolicy, SimProcess, SimTaskProvider, SimWorld,
    SimulationError, TaskProvider, TimeProvider, TraceMode,
};

fn order_of_ten(seed: u64, policy: SchedulePolicy) -> Vec<u32> {
    let world = SimWorld::new_with_seed(seed);
    world.set_schedule_policy(policy);
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..10 {
        let order = Rc::clone(&order);
        world
            .task_provider()
            .spawn_task("one of ten", async move { order.borrow_mut().push(number) });
    }
    world.run_until_empty().unwrap();
    order.take()
}

#[test]
fn the_order_of_ready_tasks_is_drawn_from_the_seed() {
    let orders: Vec<_> = (0..20)
        .map(|seed| order_of_ten(seed, SchedulePolicy::Random))
        .collect();
    let mut distinct = orders.clone();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() >= 19, "{} distinct orders", distinct.len());
    assert_eq!(orders[3], order_of_ten(3, SchedulePolicy::Random));
}

#[test]
fn the_fifo_policy_keeps_the_order_of_the_wakes() {
    assert_eq!(
        order_of_ten(5, SchedulePolicy::Fifo),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn an_aborted_task_drops_its_future_before_its_handle_tells() {
    let world = SimWorld::new();
    let task = world.task_provider();
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    let result = world
        .block_on(async move {
            let handle = task.spawn_task("stuck", async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            task.yield_now().await;
            assert!(!handle.is_finished());
            handle.abort();
            let result = handle.await;
            (result, Rc::strong_count(&alive))
        })
        .unwrap();
    assert_eq!(result, (Err(JoinError::Cancelled), 1));
    assert_eq!(world.leftovers().tasks, 0);
}

#[test]
fn aborting_a_finished_task_keeps_its_output() {
    let world = SimWorld::new();
    let task = world.task_provider();
    let result = world
        .block_on(async move {
            let handle = task.spawn_task("quick", async { 7 });
            while !handle.is_finished() {
                task.yield_now().await;
            }
            handle.abort();
            handle.await
        })
        .unwrap();
    assert_eq!(result, Ok(7));
}

#[test]
fn a_panic_fails_the_run_and_names_task_process_and_place() {
    let world = SimWorld::new();
    let server = world.add_process("server");
    server
        .task_provider()
        .spawn_task("fragile", async { panic!("broken {}", 1) });
    let error = world.block_on(std::future::pending::<()>()).unwrap_err();
    let SimulationError::Panic {
        task,
        process,
        message,
        location,
    } = error
    else {
        panic!("not a panic: {error}");
    };
    assert_eq!(
        (task.as_str(), process.as_str(), message.as_str()),
        ("fragile", "server", "broken 1")
    );
    assert!(location.unwrap().contains("tasks.rs"));
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

/// A task that holds a bomb until `time` has passed, or until it is dropped.
fn plant(process: &SimProcess, time: Duration) -> JoinHandle<()> {
    let sleep = process.time_provider().sleep(time);
    process.task_provider().spawn_task("bomber", async move {
        let _bomb = Bomb;
        sleep.await;
    })
}

fn assert_names_the_bomber(error: &SimulationError) {
    let text = error.to_string();
    assert!(
        text.contains("`bomber`") && text.contains("`host`") && text.contains("in drop"),
        "{text}"
    );
}

#[test]
fn a_panic_in_a_destructor_fails_the_run_too() {
    let world = SimWorld::new();
    plant(&world.add_process("host"), Duration::from_secs(1));
    assert_names_the_bomber(&world.run_until_empty().unwrap_err());
}

#[test]
fn a_panic_in_the_destructor_of_an_output_that_nobody_awaits_fails_the_run() {
    let world = SimWorld::new();
    let tasks = world.add_process("host").task_provider();
    drop(tasks.spawn_task("bomber", async { Bomb }));
    assert_names_the_bomber(&world.run_until_empty().unwrap_err());
}

#[test]
fn a_panic_in_a_destructor_of_an_aborted_task_fails_the_run() {
    let world = SimWorld::new();
    let handle = plant(&world.add_process("host"), Duration::from_secs(9));
    world.run_for(Duration::from_secs(1)).unwrap();
    handle.abort();
    assert_names_the_bomber(&world.run_until_empty().unwrap_err());
}

#[test]
fn a_panic_in_a_destructor_of_a_killed_process_is_told_at_the_next_drive() {
    let world = SimWorld::new();
    let host = world.add_process("host");
    plant(&host, Duration::from_secs(9));
    world.run_for(Duration::from_secs(1)).unwrap();
    world.kill(host.id(), KillKind::Crash);
    assert_names_the_bomber(&world.run_until_empty().unwrap_err());
    world.run_until_empty().unwrap();
}

#[test]
fn a_panic_in_a_destructor_at_the_worlds_end_is_told_by_close() {
    let world = SimWorld::new();
    plant(&world.add_process("host"), Duration::from_secs(9));
    world.run_for(Duration::from_secs(1)).unwrap();
    assert_names_the_bomber(&world.close().unwrap_err());
    SimWorld::new().close().unwrap();
}

#[test]
fn the_poll_that_panics_is_the_last_step_of_the_trace() {
    let world = SimWorld::new();
    world.set_trace(TraceMode::Recent);
    let tasks = world.add_process("host").task_provider();
    tasks.spawn_task("fragile", async { panic!("broken") });
    world.run_until_empty().unwrap_err();
    let last = world.recent_steps().pop().unwrap();
    assert_eq!(last.what, "poll `fragile` of `host`: it panics");
}

#[test]
fn dropping_the_world_drops_its_tasks() {
    let world = SimWorld::new();
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    world.task_provider().spawn_task("stuck", async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    world.run_until_empty().unwrap();
    assert_eq!(Rc::strong_count(&alive), 2);
    drop(world);
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn two_worlds_of_one_thread_do_not_mix_their_tasks() {
    let first = SimWorld::new_with_seed(1);
    let second = SimWorld::new_with_seed(2);
    let (send, receive) = tokio::sync::oneshot::channel::<u32>();
    let waiter = second
        .task_provider()
        .spawn_task("waiter", async move { receive.await.unwrap() });
    second.run_until_empty().unwrap();
    first
        .block_on(async move { send.send(9).unwrap() })
        .unwrap();
    assert_eq!(first.leftovers().tasks, 0);
    assert_eq!(second.block_on(waiter).unwrap(), Ok(9));
}

#[test]
fn blocking_work_gives_its_output_or_its_panic() {
    let world = SimWorld::new();
    let task = world.task_provider();
    let result = world
        .block_on(async move {
            let fine = task.run_blocking(|| 5).await;
            let broken: Result<(), _> = task.run_blocking(|| panic!("no")).await;
            (fine, broken)
        })
        .unwrap();
    assert_eq!(result, (Ok(5), Err(JoinError::Panicked("no".into()))));
}

/// In which order they were done and were heard of, and whether time passed.
type TwoBlocking = (Vec<u32>, Vec<u32>, bool);

/// In which order two pieces of blocking work were done and were heard of, of which one was handed
/// over first, and whether virtual time passed.
fn two_blocking(seed: u64) -> TwoBlocking {
    let world = SimWorld::new_with_seed(seed);
    let (task, time) = (world.task_provider(), world.time_provider());
    let done = Arc::new(Mutex::new(Vec::new()));
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (doing, hearing) = (Arc::clone(&done), Rc::clone(&heard));
    let passed = world
        .block_on(async move {
            let one = async |number: u32| {
                let doing = Arc::clone(&doing);
                let work = move || doing.lock().unwrap().push(number);
                task.run_blocking(work).await.unwrap();
                hearing.borrow_mut().push(number);
            };
            tokio::join!(biased; one(1), one(2));
            time.now() > Duration::ZERO
        })
        .unwrap();
    let done = done.lock().unwrap().clone();
    (done, heard.take(), passed)
}

#[test]
fn blocking_work_takes_time_and_may_be_overtaken() {
    let runs: Vec<_> = (0..40).map(two_blocking).collect();
    assert!(runs.iter().all(|(_, _, passed)| *passed));
    let count = |test: fn(&TwoBlocking) -> bool| runs.iter().filter(|run| test(run)).count();
    assert!(count(|(done, ..)| *done == [2, 1]) > 5);
    assert!(count(|(done, ..)| *done == [1, 2]) > 5);
    assert!(count(|(done, heard, _)| done != heard) > 5);
    assert_eq!(runs[7], two_blocking(7));
}

#[test]
fn blocking_work_waits_for_a_thread() {
    let begun_at_once = |seed| {
        let world = SimWorld::new_with_seed(seed);
        let (task, time) = (world.task_provider(), world.time_provider());
        let done = Arc::new(AtomicBool::new(false));
        let doing = Arc::clone(&done);
        world
            .block_on(async move {
                let work = task.run_blocking(move || doing.store(true, Relaxed));
                tokio::select! {
                    biased;
                    _ = work => true,
                    () = time.sleep(Duration::from_micros(1)) => done.load(Relaxed),
                }
            })
            .unwrap()
    };
    assert!((0..40).filter(|seed| !begun_at_once(*seed)).count() > 30);
}

#[test]
fn blocking_work_is_done_though_its_caller_left_unless_the_process_died() {
    let done = |kill: bool| {
        let world = SimWorld::new_with_seed(3);
        let process = world.add_process("writer");
        let done = Arc::new(AtomicBool::new(false));
        let (task, doing) = (process.task_provider(), Arc::clone(&done));
        let time = world.time_provider();
        world
            .block_on(async move {
                let mut work = Box::pin(task.run_blocking(move || doing.store(true, Relaxed)));
                let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending()));
                assert!(first.await, "it takes time");
            })
            .unwrap();
        if kill {
            assert!(world.kill(process.id(), KillKind::Crash));
        }
        world
            .block_on(async move { time.sleep(Duration::from_secs(1)).await })
            .unwrap();
        done.load(Relaxed)
    };
    assert!(done(false));
    assert!(!done(true));
}

#[test]
fn pct_runs_by_priority_and_repeats_for_a_seed() {
    let policy = SchedulePolicy::Pct { depth: 3 };
    let orders: Vec<_> = (0..20).map(|seed| order_of_ten(seed, policy)).collect();
    let mut distinct = orders.clone();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() >= 19, "{} distinct orders", distinct.len());
    assert_eq!(orders[7], order_of_ten(7, policy));
}

/// Polls of two tasks that always yield, as the sequence of who ran.
fn who_ran(policy: SchedulePolicy) -> String {
    let world = SimWorld::new_with_seed(4);
    world.set_schedule_policy(policy);
    let ran = Rc::new(RefCell::new(String::new()));
    for name in ['a', 'b'] {
        let (ran, task) = (Rc::clone(&ran), world.task_provider());
        world.task_provider().spawn_task("yielder", async move {
            for _ in 0..20_000 {
                ran.borrow_mut().push(name);
                task.yield_now().await;
            }
        });
    }
    world.run_until_empty().unwrap();
    ran.take()
}

#[test]
fn pct_keeps_one_task_running_until_a_change_point_puts_it_last() {
    let switches = |ran: &str| {
        let bytes = ran.as_bytes();
        bytes.windows(2).filter(|pair| pair[0] != pair[1]).count()
    };
    assert_eq!(switches(&who_ran(SchedulePolicy::Pct { depth: 1 })), 1);
    let with_changes = switches(&who_ran(SchedulePolicy::Pct { depth: 5 }));
    assert!((2..100).contains(&with_changes), "{with_changes}");
    assert!(switches(&who_ran(SchedulePolicy::Random)) > 5_000);
}

fn livelock_of(start: impl FnOnce(&SimWorld)) -> String {
    let world = SimWorld::new();
    world.set_livelock_limit(1000);
    start(&world);
    let error = world.run_until_empty().unwrap_err();
    assert!(matches!(error, SimulationError::Livelock { .. }), "{error}");
    error.to_string()
}

#[test]
fn a_task_that_spawns_its_successor_for_ever_is_a_livelock() {
    fn again(task: SimTaskProvider) {
        let next = task.clone();
        task.spawn_task("generation", async move { again(next) });
    }
    livelock_of(|world| again(world.task_provider()));
}

#[test]
fn a_task_that_aborts_itself_for_its_successor_for_ever_is_a_livelock() {
    fn again(task: SimTaskProvider, left: u32) {
        let own = Rc::new(RefCell::new(None::<JoinHandle<()>>));
        let (next, handle) = (task.clone(), Rc::clone(&own));
        let spawned = task.spawn_task("generation", async move {
            if left > 0 {
                again(next, left - 1);
            }
            if let Some(handle) = &*handle.borrow() {
                handle.abort();
            }
            std::future::pending::<()>().await;
        });
        *own.borrow_mut() = Some(spawned);
    }
    livelock_of(|world| again(world.task_provider(), 100_000));
}

#[test]
fn a_closure_that_schedules_itself_now_is_a_livelock() {
    fn again(world: &Rc<SimWorld>) {
        let next = Rc::downgrade(world);
        world.schedule_after(Duration::ZERO, move || again(&next.upgrade().unwrap()));
    }
    let world = Rc::new(SimWorld::new());
    world.set_livelock_limit(1000);
    again(&world);
    let error = world.run_until_empty().unwrap_err();
    assert!(matches!(error, SimulationError::Livelock { .. }), "{error}");
}
