//! Time and tasks.
//!
//! The real runs sleep a few milliseconds. What is recorded is the order only, which the deadlines
//! decide however late a timer fires.

use std::cell::Cell;
use std::future::{pending, ready};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use moonpool_foundation::{Elapsed, Providers, TaskProvider, TimeProvider};

use super::{Hosts, cases, is_pending};

cases! {
    sleeps_end_in_the_order_of_their_deadlines => [
        "order: [1, 2, 3, 4]",
        "none ended early: true",
    ];
    a_sleep_counts_from_its_creation => ["due at its first poll, later: true"];
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
    let time = hosts.server.time();
    // The timers are set at their first poll. A thread that was held up until then tries again.
    let (mut sleeps, began) = loop {
        let began = time.now();
        let mut sleeps: FuturesUnordered<_> = [3, 1, 4, 2]
            .map(|place| time.sleep(ms(place * 4)).map(move |()| place))
            .into_iter()
            .collect();
        let pending = is_pending(sleeps.next());
        if pending && time.now() - began < ms(4) {
            break (sleeps, began);
        }
    };
    let mut order = Vec::new();
    let mut early = false;
    while let Some(place) = sleeps.next().await {
        order.push(place);
        early |= time.now() < began + ms(place * 4);
    }
    table.fact("order", format_args!("{order:?}"));
    table.fact("none ended early", !early);
}

async fn a_sleep_counts_from_its_creation<P: Providers>(hosts: Hosts<P>) {
    let time = hosts.client.time();
    let sleep = Box::pin(time.sleep(ms(4)));
    time.sleep(ms(8)).await;
    hosts
        .table
        .fact("due at its first poll, later", !is_pending(sleep));
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
