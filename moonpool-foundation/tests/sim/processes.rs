//! Processes: names, addresses, and deaths of which nothing is heard afterwards.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{
    ChaosConfiguration, FaultKind, KillKind, NetworkConfiguration, NetworkProvider, Providers,
    RandomProvider, SimProcess, SimProviders, SimWorld, TaskProvider, TcpListenerTrait,
    TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn processes_get_addresses_in_order_and_names_resolve() {
    let world = SimWorld::new();
    for name in ["a", "b", "c"] {
        world.add_process(name);
    }
    let found: Vec<_> = world
        .all_processes()
        .iter()
        .map(|p| (p.name().to_owned(), p.ip().to_string()))
        .collect();
    let expected = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")];
    assert_eq!(found, expected.map(|(n, ip)| (n.to_owned(), ip.to_owned())));
    assert_eq!(
        world.add_process("b").id(),
        world.process("b").unwrap().id()
    );
    assert!(world.process("d").is_none());
}

/// Serves one connection: sends a byte every millisecond, counts in `log`, and says when it drops.
async fn ticker(providers: SimProviders, log: Rc<RefCell<Vec<&'static str>>>) {
    struct Farewell(Rc<RefCell<Vec<&'static str>>>, SimProviders);
    impl Drop for Farewell {
        fn drop(&mut self) {
            self.0.borrow_mut().push("dropped");
            // None of this may be seen by anyone: the process is sealed.
            self.1.task().spawn_task("ghost", async {});
            let _: u64 = self.1.random().random();
        }
    }
    let listener = providers.network().bind("server:80").await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let _farewell = Farewell(Rc::clone(&log), providers.clone());
    loop {
        stream.write_all(b"x").await.unwrap();
        log.borrow_mut().push("tick");
        providers.time().sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn nothing_of_a_killed_process_runs_on_and_its_peers_see_a_reset() {
    let world = SimWorld::new_with_seed(3);
    let server = world.add_process("server");
    let client = world.add_process("client").providers();
    let log = Rc::new(RefCell::new(Vec::new()));
    server
        .task_provider()
        .spawn_task("ticker", ticker(server.providers(), Rc::clone(&log)));
    let reader = client.task().spawn_task("reader", {
        let client = client.clone();
        async move {
            client.time().sleep(Duration::from_millis(10)).await;
            let mut stream = client.network().connect("server:80").await.unwrap();
            let mut total = 0;
            let mut bytes = [0; 64];
            loop {
                match stream.read(&mut bytes).await {
                    Ok(0) => return Ok(total),
                    Ok(n) => total += n,
                    Err(error) => return Err(error.kind()),
                }
            }
        }
    });
    world.run_for(Duration::from_millis(200)).unwrap();
    let ticks = log.borrow().len();
    assert!(ticks > 50, "{ticks}");
    world.kill(server.id(), KillKind::Crash);
    assert_eq!(log.borrow().last(), Some(&"dropped"));
    assert!(!server.is_alive());
    let end = world.block_on(reader).unwrap().unwrap();
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    world.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(log.borrow().len(), ticks + 1);
    let left = world.leftovers();
    assert_eq!(
        (left.tasks, left.events, left.connections, left.listeners),
        (0, 0, 0, 0)
    );
    let refused = client.network().connect("server:80");
    let refused = world.block_on(async move { refused.await.map(drop).map_err(|e| e.kind()) });
    assert_eq!(refused.unwrap(), Err(std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_destructor_of_a_dead_process_does_not_change_the_digest() {
    let digest = |draws: usize| {
        struct Draws(SimProviders, usize);
        impl Drop for Draws {
            fn drop(&mut self) {
                for _ in 0..self.1 {
                    let _: u64 = self.0.random().random();
                }
            }
        }
        let world = SimWorld::new_with_seed(1);
        let victim = world.add_process("victim");
        let held = Draws(victim.providers(), draws);
        victim.task_provider().spawn_task("holder", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        world.run_until_empty().unwrap();
        world.kill(victim.id(), KillKind::Crash);
        world.digest()
    };
    assert_eq!(digest(0), digest(5));
}

#[test]
fn a_process_that_kills_itself_ends_with_that_poll() {
    let world = Rc::new(SimWorld::new());
    let victim = world.add_process("victim");
    let steps = Rc::new(RefCell::new(Vec::new()));
    let (log, id, providers) = (Rc::clone(&steps), victim.id(), victim.providers());
    let weak = Rc::downgrade(&world);
    victim.task_provider().spawn_task("suicide", async move {
        log.borrow_mut().push("before");
        weak.upgrade().unwrap().kill(id, KillKind::Crash);
        log.borrow_mut().push("same poll");
        providers.time().sleep(Duration::from_millis(1)).await;
        log.borrow_mut().push("after");
    });
    world.run_until_empty().unwrap();
    assert_eq!(*steps.borrow(), ["before", "same poll"]);
    assert_eq!(world.leftovers().tasks, 0);
}

#[test]
fn handles_of_a_dead_process_stay_inert() {
    let world = SimWorld::new();
    let victim = world.add_process("victim");
    let providers = victim.providers();
    world.kill(victim.id(), KillKind::Crash);
    let handle = providers.task().spawn_task("ghost", async { 1 });
    assert!(world.block_on(handle).unwrap().is_err());
    let connect = providers.network().connect("victim:1");
    let sleep = providers.time().sleep(Duration::from_secs(1));
    let outcome = world.block_on(async move {
        tokio::select! { biased;
            _ = connect => "connected",
            () = sleep => "slept",
        }
    });
    assert!(
        outcome.is_err(),
        "a dead process neither connects nor wakes: {outcome:?}"
    );
    assert_eq!(world.pending_event_count(), 0);
}

/// Says each `period` that it is alive, and when it is asked to end; never returns.
fn heartbeat(
    world: &SimWorld,
    name: &str,
    period: Duration,
) -> (SimProcess, Rc<RefCell<Vec<Duration>>>) {
    let beats: Rc<RefCell<Vec<Duration>>> = Rc::default();
    let log = Rc::clone(&beats);
    let process = world.start_process(name, move |providers| {
        let log = Rc::clone(&log);
        async move {
            loop {
                providers.time().sleep(period).await;
                log.borrow_mut().push(providers.time().now());
            }
        }
    });
    (process, beats)
}

fn exact(seed: u64) -> SimWorld {
    SimWorld::new_with_network_config_and_seed(NetworkConfiguration::disabled(), seed).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_graceful_kill_asks_first_and_kills_when_the_grace_is_over() {
    let world = exact(1);
    let (victim, beats) = heartbeat(&world, "victim", SECOND);
    let (other, _) = heartbeat(&world, "other", SECOND);
    let (token, others) = (victim.shutdown_token(), other.shutdown_token());
    assert!(world.kill(victim.id(), KillKind::Graceful { grace: 3 * SECOND }));
    assert!(token.is_cancelled() && !others.is_cancelled());
    assert!(victim.is_alive(), "it has its grace");
    assert!(!world.kill(victim.id(), KillKind::Graceful { grace: SECOND }));
    world.run_for(10 * SECOND).unwrap();
    assert!(!victim.is_alive());
    assert_eq!(beats.borrow().len(), 2, "{:?}", beats.borrow());
    assert!(world.restart(victim.id()));
    assert!(!victim.shutdown_token().is_cancelled(), "of the new life");
    assert_eq!(world.fault_counts().of(FaultKind::Graceful), 1);
    assert_eq!(world.fault_counts().of(FaultKind::Kill), 0);
}

#[test]
fn a_process_that_is_restarted_in_its_grace_by_a_crash_is_not_killed_at_its_end() {
    let world = exact(2);
    let (victim, _) = heartbeat(&world, "victim", SECOND);
    world.kill(victim.id(), KillKind::Graceful { grace: 3 * SECOND });
    world.run_for(SECOND).unwrap();
    assert!(world.kill(victim.id(), KillKind::Crash));
    assert!(world.restart(victim.id()));
    world.run_for(10 * SECOND).unwrap();
    assert!(victim.is_alive());
}

#[test]
fn a_rebooted_process_lives_again_after_a_drawn_while() {
    let after = Duration::from_millis(500)..Duration::from_secs(2);
    let back = |seed| {
        let world = exact(seed);
        let (victim, beats) = heartbeat(&world, "victim", Duration::from_millis(1));
        let reboot = KillKind::Reboot {
            after: after.clone(),
        };
        assert!(world.kill(victim.id(), reboot));
        assert!(!victim.is_alive());
        world.run_for(3 * SECOND).unwrap();
        assert!(victim.is_alive());
        let first = beats.borrow()[0];
        first - Duration::from_millis(1)
    };
    let times: Vec<Duration> = (0..50).map(back).collect();
    assert!(times.iter().all(|time| after.contains(time)), "{times:?}");
    let spread = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(spread > SECOND, "{spread:?}");
}

#[test]
fn a_reboot_is_over_when_somebody_restarts_the_process_before() {
    let world = exact(3);
    let (victim, _) = heartbeat(&world, "victim", SECOND);
    let reboot = KillKind::Reboot {
        after: 5 * SECOND..6 * SECOND,
    };
    world.kill(victim.id(), reboot);
    assert_eq!(world.pending_event_count(), 1, "the restart is due");
    assert!(world.restart(victim.id()));
    assert_eq!(world.pending_event_count(), 0, "it is withdrawn");
    world.kill(victim.id(), KillKind::Crash);
    world.run_for(10 * SECOND).unwrap();
    assert!(!victim.is_alive());
}

#[test]
fn a_skipped_kill_pause_or_reboot_does_not_happen() {
    let world = exact(4);
    let (victim, beats) = heartbeat(&world, "victim", SECOND);
    let skipped = ["kill#1", "pause#1", "reboot#1", "graceful#1"];
    world.set_skipped_faults(skipped.map(|fault| fault.parse().unwrap()));
    let id = victim.id();
    let reboot = KillKind::Reboot {
        after: SECOND..SECOND,
    };
    assert!(!world.kill(id, KillKind::Crash));
    assert!(!world.pause(id));
    assert!(!world.kill(id, reboot));
    assert!(!world.kill(id, KillKind::Graceful { grace: SECOND }));
    world.run_for(5 * SECOND).unwrap();
    assert_eq!(beats.borrow().len(), 5);
    assert!(!victim.shutdown_token().is_cancelled());
    assert!(world.kill(id, KillKind::PowerLoss), "kill#2 is not skipped");
}

#[test]
fn code_inside_commands_the_world_until_its_process_is_dead() {
    let world = exact(5);
    let victim = world.add_process("victim");
    let bystander = world.add_process("bystander");
    struct Revenge(SimProviders);
    impl Drop for Revenge {
        fn drop(&mut self) {
            assert!(self.0.world().is_none(), "the dead command nothing");
        }
    }
    let (providers, target) = (victim.providers(), bystander.id());
    victim.task_provider().spawn_task("avenger", async move {
        let _revenge = Revenge(providers.clone());
        let world = providers.world().unwrap();
        assert!(world.pause(target));
        assert!(world.block_on(async {}).is_err(), "it cannot be driven");
        drop(world);
        std::future::pending::<()>().await;
    });
    world.run_until_empty().unwrap();
    assert!(bystander.is_paused());
    world.kill(victim.id(), KillKind::Crash);
    world.close().unwrap();
}

#[test]
fn a_restart_rewinds_nobodys_random_stream() {
    let draws = |restarts: usize| {
        let world = exact(6);
        let drawn: Rc<RefCell<Vec<u64>>> = Rc::default();
        let other = world.add_process("other").providers();
        let log = Rc::clone(&drawn);
        let process = world.start_process("server", move |providers| {
            log.borrow_mut().push(providers.random().random());
            async {}
        });
        for _ in 0..restarts {
            world.kill(process.id(), KillKind::Crash);
            world.restart(process.id());
        }
        let others: u64 = other.random().random();
        let drawn = drawn.borrow().clone();
        (drawn, others)
    };
    let (once, other) = draws(0);
    let (often, other_again) = draws(3);
    assert_eq!(often[0], once[0]);
    let mut distinct = often.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "each life goes on in the stream");
    assert_eq!(other, other_again);
}

#[test]
fn a_paused_process_stands_still_and_its_timers_fire_late() {
    let world = exact(7);
    let (server, beats) = heartbeat(&world, "server", SECOND);
    world.run_for(2 * SECOND).unwrap();
    assert!(world.pause(server.id()) && !world.pause(server.id()));
    let ghost = server.task_provider().spawn_task("spawned", async {});
    world.run_for(60 * SECOND).unwrap();
    assert_eq!(beats.borrow().len(), 2, "nothing of it ran");
    assert!(!ghost.is_finished() && server.is_paused() && server.is_alive());
    assert!(world.resume(server.id()) && !world.resume(server.id()));
    world.run_for(SECOND).unwrap();
    assert_eq!(beats.borrow()[2], 62 * SECOND, "late, and once");
    assert_eq!(beats.borrow()[3], 63 * SECOND);
    assert!(ghost.is_finished());
}

#[test]
fn the_longer_of_two_pauses_is_not_cut_short_by_the_end_of_the_first() {
    let world = exact(8);
    let (server, _) = heartbeat(&world, "server", SECOND);
    assert!(world.pause_for(server.id(), 5 * SECOND));
    world.run_for(SECOND).unwrap();
    world.resume(server.id());
    assert!(world.pause_for(server.id(), 10 * SECOND));
    world.run_for(9 * SECOND).unwrap();
    assert!(server.is_paused());
    world.run_for(SECOND).unwrap();
    assert!(!server.is_paused());
}

#[test]
fn a_paused_process_that_is_killed_drops_its_tasks_and_is_not_paused_in_its_next_life() {
    struct Told(Rc<RefCell<u32>>);
    impl Drop for Told {
        fn drop(&mut self) {
            *self.0.borrow_mut() += 1;
        }
    }
    let world = exact(9);
    let dropped: Rc<RefCell<u32>> = Rc::default();
    let held = Rc::clone(&dropped);
    let server = world.start_process("server", move |providers| {
        let told = Told(Rc::clone(&held));
        async move {
            let _told = told;
            providers.time().sleep(SECOND).await;
            std::future::pending::<()>().await;
        }
    });
    world.run_until_empty().unwrap();
    world.pause_for(server.id(), 10 * SECOND);
    world.kill(server.id(), KillKind::Crash);
    assert_eq!(*dropped.borrow(), 1);
    assert_eq!(world.pending_event_count(), 0);
    world.restart(server.id());
    assert!(!server.is_paused());
    world.run_until_empty().unwrap();
    assert_eq!(world.now(), 2 * SECOND);
}

#[test]
fn a_pause_of_its_own_process_takes_effect_at_the_end_of_the_poll() {
    let world = exact(10);
    let server = world.add_process("server");
    let steps: Rc<RefCell<Vec<&str>>> = Rc::default();
    let (log, providers, id) = (Rc::clone(&steps), server.providers(), server.id());
    server.task_provider().spawn_task("sleeper", async move {
        providers.world().unwrap().pause_for(id, SECOND);
        log.borrow_mut().push("same poll");
        providers.task().yield_now().await;
        log.borrow_mut().push("later");
        assert_eq!(providers.time().now(), SECOND);
    });
    world.run_for(SECOND / 2).unwrap();
    assert_eq!(*steps.borrow(), ["same poll"]);
    world.run_until_empty().unwrap();
    assert_eq!(*steps.borrow(), ["same poll", "later"]);
}

/// A server that accepts one connection, and reads it to its end.
async fn sink(providers: SimProviders, received: Rc<RefCell<Vec<u8>>>) {
    let listener = providers.network().bind("server:80").await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = [0; 1024];
    while let Ok(count) = stream.read(&mut bytes).await {
        if count == 0 {
            break;
        }
        received.borrow_mut().extend_from_slice(&bytes[..count]);
    }
    std::future::pending::<()>().await;
}

#[test]
fn a_pause_longer_than_a_peers_time_out_is_silence_without_a_reset_and_loses_nothing() {
    let world = exact(11);
    let received: Rc<RefCell<Vec<u8>>> = Rc::default();
    let server = world.add_process("server");
    let client = world.add_process("client").providers();
    server
        .task_provider()
        .spawn_task("sink", sink(server.providers(), Rc::clone(&received)));
    world.run_for(SECOND).unwrap();
    let connect = client.clone();
    let mut stream = world
        .block_on(async move { connect.network().connect("server:80").await.unwrap() })
        .unwrap();
    world.run_for(SECOND).unwrap();
    world.pause(server.id());
    let (time, sent) = (client.time().clone(), vec![7; 300_000]);
    let outcome = world.block_on(async move {
        let mut written = 0;
        // The buffers of both hosts fill, then the writer waits; nothing tells it why.
        while let Ok(count) = time
            .timeout(60 * SECOND, stream.write(&sent[written..]))
            .await
        {
            written += count.unwrap();
        }
        let silence = time.timeout(60 * SECOND, stream.read_u8()).await;
        assert!(silence.is_err(), "{silence:?}");
        (stream, written)
    });
    let (mut stream, written) = outcome.unwrap();
    assert!((64 << 10..300_000).contains(&written), "{written}");
    assert!(received.borrow().is_empty());
    world.resume(server.id());
    world
        .block_on(async move { stream.shutdown().await.unwrap() })
        .unwrap();
    world.run_for(SECOND).unwrap();
    assert_eq!(received.borrow().len(), written);
}

#[test]
fn connects_to_a_paused_process_fill_its_backlog_and_are_accepted_later() {
    let world = exact(12);
    let accepted: Rc<RefCell<u32>> = Rc::default();
    let (server, count) = (world.add_process("server"), Rc::clone(&accepted));
    let providers = server.providers();
    server.task_provider().spawn_task("acceptor", async move {
        let listener = providers.network().bind("server:80").await.unwrap();
        loop {
            listener.accept().await.unwrap();
            *count.borrow_mut() += 1;
        }
    });
    world.run_for(SECOND).unwrap();
    world.pause(server.id());
    let client = world.add_process("client").network_provider();
    world
        .block_on(async move {
            for _ in 0..3 {
                // Its kernel answers for it.
                client.connect("server:80").await.unwrap();
            }
        })
        .unwrap();
    world.run_for(60 * SECOND).unwrap();
    assert_eq!(*accepted.borrow(), 0);
    world.resume(server.id());
    world.run_for(SECOND).unwrap();
    assert_eq!(*accepted.borrow(), 3);
}

#[test]
fn timers_and_wakers_of_a_dead_life_are_inert() {
    let world = exact(13);
    let victim = world.add_process("victim");
    let (providers, time) = (victim.providers(), victim.time_provider());
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let woken: Rc<RefCell<bool>> = Rc::default();
    let log = Rc::clone(&woken);
    victim.task_provider().spawn_task("waiter", async move {
        drop(receiver.await);
        *log.borrow_mut() = true;
        providers.task().spawn_task("ghost", async {});
    });
    world.run_until_empty().unwrap();
    let timer = time.sleep(SECOND);
    world.kill(victim.id(), KillKind::Crash);
    world.restart(victim.id());
    // The receiver went with its task.
    assert!(sender.send(()).is_err());
    let ended = world.providers();
    let outcome = world.block_on(async move { ended.time().timeout(10 * SECOND, timer).await });
    assert!(outcome.unwrap().is_err(), "a dead life's sleep never ends");
    assert!(!*woken.borrow());
    assert_eq!(world.leftovers().tasks, 0);
}

#[test]
fn healing_brings_everyone_back_and_stops_what_is_wrong_with_time() {
    let chaos = ChaosConfiguration {
        buggified_delay_probability: 1.0,
        ..ChaosConfiguration::default()
    };
    let config = NetworkConfiguration {
        chaos,
        ..NetworkConfiguration::disabled()
    };
    let world = SimWorld::new_with_network_config_and_seed(config, 14).unwrap();
    let period = 100 * Duration::from_millis(1);
    let processes = ["dead", "paused", "stopping", "rebooting"];
    let [dead, paused, stopping, rebooting] = processes.map(|name| heartbeat(&world, name, period));
    world.run_for(20 * SECOND).unwrap();
    world.kill(dead.0.id(), KillKind::PowerLoss);
    world.pause(paused.0.id());
    world.kill(stopping.0.id(), KillKind::Graceful { grace: SECOND });
    world.kill(
        rebooting.0.id(),
        KillKind::Reboot {
            after: 60 * SECOND..61 * SECOND,
        },
    );
    world.heal_processes();
    for (process, beats) in [&dead, &paused, &stopping, &rebooting] {
        assert!(process.is_alive() && !process.is_paused());
        assert!(!process.shutdown_token().is_cancelled());
        beats.borrow_mut().clear();
    }
    // The one sleep that had begun before may still be long.
    world.run_for(SECOND).unwrap();
    let fired = world.fault_counts();
    assert!(fired.of(FaultKind::BuggifiedDelay) > 0);
    world.run_for(100 * SECOND).unwrap();
    for (_, beats) in [&dead, &paused, &stopping, &rebooting] {
        assert!((1_009..=1_010).contains(&beats.borrow().len()));
    }
    assert_eq!(world.fault_counts(), fired);
    let time = dead.0.time_provider();
    assert_eq!(time.timer(), time.now());
}
