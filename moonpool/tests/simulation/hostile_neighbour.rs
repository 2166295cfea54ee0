//! Honest clients beside hostile ones: what they are served with, and how soon, in simulated time.
//!
//! Computing takes no time here. What an attack can cost others is room: in the backlog, among the
//! handshakes, sessions and connections, in queues and on the line of the server.

#[allow(dead_code, reason = "the example uses the rest of it")]
#[path = "../../examples/hostile/attacks.rs"]
mod attacks;
#[allow(dead_code, reason = "the example uses the rest of it")]
#[path = "../../examples/hostile/service.rs"]
mod service;
#[allow(dead_code, reason = "the example uses the rest of it")]
#[path = "../../examples/hostile/wire.rs"]
mod wire;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{LatencyModel, NetworkConfiguration, SimProviders, SimWorld};
use moonpool::prelude::*;

use attacks::{Attacker, Kind, Plan};
use service::Seen;
use wire::Hello;

const SEEDS: u64 = 2;

/// How long clients are watched, alone and beside an attack that fills the line.
const BRIEFLY: Duration = Duration::from_millis(400);
/// The same for attacks that wait: until greetings are given up (2 s) and silent ends are pinged and
/// given up (1 s and 2 s), and what follows.
const LONG: Duration = Duration::from_secs(6);

/// Latencies as by default, and no fault: only the hostile client makes a difference. Accepting is a
/// system call here, not the host's scheduling.
fn network() -> NetworkConfiguration {
    NetworkConfiguration {
        accept_latency: LatencyModel::uniform(Duration::from_micros(1), Duration::from_micros(10)),
        ..NetworkConfiguration::disabled()
    }
}

impl Kind {
    fn watched(self) -> Duration {
        match self {
            Self::NeverGreets
            | Self::HalfHello
            | Self::Abandoned
            | Self::HalfPacket
            | Self::SlowRequest => LONG,
            _ => BRIEFLY,
        }
    }

    /// Enough of each to fill what it aims at.
    fn simulated(self) -> Plan {
        let (lanes, connections) = match self {
            // More than may be without a Hello at one time.
            Self::NeverGreets | Self::HalfHello => (1_500, 3_000),
            Self::SlowHello | Self::SlowRequest | Self::ClaimedAddress | Self::HalfPacket => {
                (100, 1_000)
            }
            Self::SlowReader
            | Self::NoAcknowledgement
            | Self::AbsentTokens
            | Self::Undecodable
            | Self::Pings => (2, 4),
            Self::Garbage
            | Self::HugeLength
            | Self::WrongHello
            | Self::HelloFlood
            | Self::HelloAgain
            | Self::Abandoned
            | Self::CopiedHello
            | Self::BrokenRules
            | Self::Connects
            | Self::Greetings => (64, 1_000),
        };
        // A flood fills the line with small packets, and each costs the simulation time.
        let is_flood = lanes == 2;
        Plan {
            lanes,
            connections,
            limit: self.watched(),
            stay: match is_flood {
                true => self.watched() / 20,
                false => self.watched(),
            },
        }
    }
}

/// What clients that stay, and newcomers, saw beside an attack, if there is one.
fn observe(seed: u64, kind: Option<Kind>, watched: Duration) -> (Seen, Seen) {
    let world = SimWorld::new_with_network_config_and_seed(network(), seed).unwrap();
    world.set_time_budget(Some(Duration::from_secs(600)));
    let host = world.add_process("server");
    let (settled, newcomer) = (world.add_process("settled"), world.add_process("newcomer"));
    let hostile = world.add_process("hostile").providers();
    let server = host.providers();
    let address = NetworkAddress::new(host.ip(), 4500);
    let (stay, come) = (Seen::default(), Seen::default());
    let ended = world.block_on(async {
        let transport = service::listen(&server, address, None).await.unwrap();
        let serving = service::serve::<SimProviders>(Rc::clone(&transport));
        let serving = server.task().spawn_task("service", serving);
        let is_over = Rc::new(Cell::new(false));
        let clients = [
            settled.providers().task().spawn_task(
                "settled",
                service::settled(
                    settled.providers(),
                    address,
                    stay.clone(),
                    Rc::clone(&is_over),
                ),
            ),
            newcomer.providers().task().spawn_task(
                "newcomer",
                service::newcomer(
                    newcomer.providers(),
                    address,
                    come.clone(),
                    Rc::clone(&is_over),
                ),
            ),
        ];
        let attack = kind.map(|kind| {
            // The address claimed is the client's: it does not listen, and is not dialled.
            let victim = Hello {
                address: Some(([10, 0, 0, 2], 4500)),
                ..Hello::new(UID::new(7, 7), UID::new(8, 8))
            };
            let targets = vec![address.to_string()];
            let attacker = Attacker::new(hostile.clone(), targets, kind, kind.simulated())
                .sizes(service::MAX_PAYLOAD, service::ANSWER_BYTES)
                .victim(victim);
            hostile.task().spawn_task("hostile", attacker.run())
        });
        server.time().sleep(watched).await;
        is_over.set(true);
        for client in clients {
            client.await.unwrap();
        }
        if let Some(attack) = attack {
            attack.await.unwrap();
        }
        transport.shutdown(Duration::from_secs(1)).await;
        serving.await.unwrap();
        let stats = transport.stats();
        let above: Vec<_> = service::gauges(&stats)
            .into_iter()
            .filter(|(_, gauge)| *gauge != 0)
            .collect();
        assert!(above.is_empty(), "seed {seed}, {kind:?}: {above:?}");
    });
    if let Err(error) = ended {
        panic!("seed {seed}, {kind:?}: {error}");
    }
    (stay, come)
}

/// The honest clients' latencies at the 99th percentile are at most three times those without the
/// attack, and none of their calls fails.
fn leaves_others_alone(kind: Kind) {
    for seed in 0..SEEDS {
        let (stay_alone, come_alone) = observe(seed, None, kind.watched());
        let (stay, come) = observe(seed, Some(kind), kind.watched());
        for (who, alone, beside) in [("settled", stay_alone, stay), ("new", come_alone, come)] {
            let (allowed, p99) = (3 * alone.percentile(99), beside.percentile(99));
            println!(
                "{kind:?} {seed} {who}: {} calls, {p99:?}; alone {} calls, {:?}",
                beside.done(),
                alone.done(),
                alone.percentile(99)
            );
            assert!(alone.done() > 20, "seed {seed}: {who}: {}", alone.done());
            assert!(
                beside.failed().is_empty(),
                "seed {seed}, {who} beside {kind:?}: {:?}",
                beside.failed()
            );
            assert!(
                p99 <= allowed && beside.done() * 3 >= alone.done(),
                "seed {seed}, {who} beside {kind:?}: {p99:?} of {} calls, alone {:?} of {}",
                beside.done(),
                alone.percentile(99),
                alone.done()
            );
        }
    }
}

macro_rules! leave_others_alone {
    ($($name:ident: $kind:ident;)*) => {
        $(#[test]
        fn $name() {
            leaves_others_alone(Kind::$kind);
        })*
    };
}

leave_others_alone! {
    garbage_does_not_slow_others_down: Garbage;
    connections_that_never_greet_do_not_slow_others_down: NeverGreets;
    half_greetings_do_not_slow_others_down: HalfHello;
    slow_greetings_do_not_slow_others_down: SlowHello;
    huge_lengths_do_not_slow_others_down: HugeLength;
    wrong_greetings_do_not_slow_others_down: WrongHello;
    a_flood_of_greetings_does_not_slow_others_down: HelloFlood;
    greetings_inside_sessions_do_not_slow_others_down: HelloAgain;
    abandoned_sessions_do_not_slow_others_down: Abandoned;
    copied_greetings_do_not_slow_others_down: CopiedHello;
    claimed_addresses_do_not_slow_others_down: ClaimedAddress;
    half_packets_do_not_slow_others_down: HalfPacket;
    slow_requests_do_not_slow_others_down: SlowRequest;
    a_slow_reader_does_not_slow_others_down: SlowReader;
    answers_without_acknowledgement_do_not_slow_others_down: NoAcknowledgement;
    a_flood_to_absent_tokens_does_not_slow_others_down: AbsentTokens;
    a_flood_of_pings_does_not_slow_others_down: Pings;
    broken_rules_do_not_slow_others_down: BrokenRules;
    undecodable_messages_do_not_slow_others_down: Undecodable;
    a_flood_of_connects_does_not_slow_others_down: Connects;
    a_flood_of_short_sessions_does_not_slow_others_down: Greetings;
}
