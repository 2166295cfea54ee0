//! Processes: names, addresses, and deaths of which nothing is heard afterwards.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{
    KillKind, NetworkProvider, Providers, RandomProvider, SimProviders, SimWorld, TaskProvider,
    TcpListenerTrait, TimeProvider,
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
