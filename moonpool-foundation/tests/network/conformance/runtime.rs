//! Time and tasks.
//!
//! The real runs sleep a few milliseconds. What is recorded is the order only, which the deadlines
//! decide however late a timer fires.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use moonpool_foundation::{Elapsed, Providers, TaskHandle, TaskProvider, TimeProvider};

use super::{Hosts, cases};

cases! {
    sleeps_end_in_the_order_of_their_deadlines => [
        "order: [1, 2, 3, 4]",
        "none ended early: true",
    ];
    a_sleep_counts_from_its_creation => ["the older sleep ended first: true"];
    timeouts_pass_or_give_the_output => [
        "ready future, no time: Ok(1)",
        "pending future, no time: Elapsed",
        "pending future: Elapsed",
        "shorter future: Ok(2)",
        "as an i/o error: TimedOut",
    ];
    clocks_do_not_go_back => [
        "now: true",
        "timer: true",
        "timer is not behind now: true",
        "unix_time: true",
    ];
    a_task_gives_its_output_or_says_that_it_was_cancelled => [
        "output: Ok(7)",
        "finished before abort: false",
        "aborted: Err(Cancelled)",
        "its future was dropped: true",
        "abort of a finished task: Ok(8)",
    ];
    a_dropped_handle_detaches_its_task => ["the task ran: true"];
    yielding_lets_other_tasks_run => ["the other task ran: true"];
    blocking_work_gives_its_output => [
        "output: Ok(42)",
        "panic: Err(Panicked(\"blocking work failed\"))",
    ];
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn sleeps_end_in_the_order_of_their_deadlines<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let order = Rc::new(RefCell::new(Vec::new()));
    let early = Rc::new(Cell::new(false));
    let mut tasks = Vec::new();
    for place in [3, 1, 4, 2] {
        let (order, early) = (Rc::clone(&order), Rc::clone(&early));
        let time = hosts.server.time().clone();
        let due = time.now() + ms(place * 4);
        let sleep = time.sleep(ms(place * 4));
        tasks.push(hosts.server.task().spawn_task("sleeper", async move {
            sleep.await;
            order.borrow_mut().push(place);
            early.set(early.get() || time.now() < due);
        }));
    }
    for joined in join_all(tasks).await {
        joined.expect("joined");
    }
    table.fact("order", format_args!("{:?}", order.borrow()));
    table.fact("none ended early", !early.get());
}

async fn a_sleep_counts_from_its_creation<P: Providers>(hosts: Hosts<P>) {
    let time = hosts.client.time();
    let older = time.sleep(ms(10));
    time.sleep(ms(5)).await;
    let newer = time.sleep(ms(10));
    let first = Rc::new(Cell::new(None));
    let finish = async |sleep: <P::Time as TimeProvider>::Sleep, name: &'static str| {
        sleep.await;
        if first.get().is_none() {
            first.set(Some(name));
        }
    };
    // The newer one is polled first, so that a sleep that counts from its first poll shows.
    futures_util::join!(finish(newer, "newer"), finish(older, "older"));
    hosts
        .table
        .fact("the older sleep ended first", first.get() == Some("older"));
}

async fn timeouts_pass_or_give_the_output<P: Providers>(hosts: Hosts<P>) {
    fn shown<T: std::fmt::Debug>(result: Result<T, Elapsed>) -> String {
        match result {
            Ok(value) => format!("Ok({value:?})"),
            Err(Elapsed { .. }) => "Elapsed".to_owned(),
        }
    }
    let table = &hosts.table;
    let time = hosts.client.time();
    let zero = Duration::ZERO;
    let result = time.timeout(zero, ready(1)).await;
    table.fact("ready future, no time", shown(result));
    let result = time.timeout(zero, pending::<()>()).await;
    table.fact("pending future, no time", shown(result));
    let result = time.timeout(ms(3), pending::<()>()).await;
    table.fact("pending future", shown(result));
    let longer = Duration::from_secs(50);
    let shorter = async {
        time.sleep(ms(2)).await;
        2
    };
    let result = time.timeout(longer, shorter).await;
    table.fact("shorter future", shown(result));
    let elapsed = time.timeout(zero, pending::<()>()).await;
    let _elapsed = table.step("as an i/o error", elapsed.map_err(io::Error::from));
}

async fn clocks_do_not_go_back<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let time = hosts.client.time();
    let (now, timer, unix) = (time.now(), time.timer(), time.unix_time());
    time.sleep(ms(2)).await;
    table.fact("now", time.now() >= now + ms(2));
    table.fact("timer", time.timer() >= timer + ms(1));
    let now = time.now();
    table.fact("timer is not behind now", time.timer() >= now);
    table.fact("unix_time", time.unix_time() > unix);
}

async fn a_task_gives_its_output_or_says_that_it_was_cancelled<P: Providers>(hosts: Hosts<P>) {
    struct SetOnDrop(Rc<Cell<bool>>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    let table = &hosts.table;
    let task = hosts.server.task();
    let output = task.spawn_task("adder", async { 3 + 4 }).await;
    table.fact("output", format_args!("{output:?}"));

    let dropped = Rc::new(Cell::new(false));
    let held = SetOnDrop(Rc::clone(&dropped));
    let handle = task.spawn_task("waiter", async move {
        let _held = held;
        pending::<()>().await;
    });
    task.yield_now().await;
    table.fact("finished before abort", handle.is_finished());
    handle.abort();
    let output = handle.await;
    table.fact("aborted", format_args!("{output:?}"));
    table.fact("its future was dropped", dropped.get());

    let handle = task.spawn_task("adder", async { 4 + 4 });
    while !handle.is_finished() {
        task.yield_now().await;
    }
    handle.abort();
    let output = handle.await;
    table.fact("abort of a finished task", format_args!("{output:?}"));
}

async fn a_dropped_handle_detaches_its_task<P: Providers>(hosts: Hosts<P>) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let handle = hosts.server.task().spawn_task("detached", async move {
        let _sent = sender.send(true);
    });
    drop(handle);
    let ran = receiver.await.unwrap_or(false);
    hosts.table.fact("the task ran", ran);
}

async fn yielding_lets_other_tasks_run<P: Providers>(hosts: Hosts<P>) {
    let task = hosts.client.task();
    let ran = Rc::new(Cell::new(false));
    let flag = Rc::clone(&ran);
    let other = task.spawn_task("other", async move { flag.set(true) });
    // A scheduler that never picks the other task would keep this loop going for ever.
    while !ran.get() {
        task.yield_now().await;
    }
    other.await.expect("joined");
    hosts.table.fact("the other task ran", ran.get());
}

async fn blocking_work_gives_its_output<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let task = hosts.client.task();
    let output = task.run_blocking(|| 42).await;
    table.fact("output", format_args!("{output:?}"));
    let output = task
        .run_blocking(|| -> u32 { panic!("blocking work failed") })
        .await;
    table.fact("panic", format_args!("{output:?}"));
}
