//! Addresses: both families, chosen ones, and those that a translator shows.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use moonpool_foundation::{
    KillKind, NetworkConfiguration, NetworkProvider, ProcessAddressError, SimProcess, SimWorld,
    TaskProvider, TcpListenerTrait, TcpStreamTrait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Listens on `bind`, answers each connection with a byte, and notes what it sees of its dialers.
fn answer(server: &SimProcess, bind: &str) -> Rc<RefCell<Vec<SocketAddr>>> {
    let seen: Rc<RefCell<Vec<SocketAddr>>> = Rc::default();
    let (network, log, bind) = (server.network_provider(), Rc::clone(&seen), bind.to_owned());
    server.task_provider().spawn_task("answer", async move {
        let listener = network.bind(&bind).await.unwrap();
        loop {
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), peer);
            stream.write_u8(7).await.unwrap();
            log.borrow_mut().push(peer.parse().unwrap());
        }
    });
    seen
}

/// What a dial gives: the byte, or the kind of error.
fn dial(world: &SimWorld, client: &SimProcess, addr: &str) -> Result<u8, ErrorKind> {
    let (network, addr) = (client.network_provider(), addr.to_owned());
    let dialled = world.block_on(async move {
        let mut stream = network.connect(&addr).await?;
        let peer: SocketAddr = stream.peer_addr()?.parse().unwrap();
        let local: SocketAddr = stream.local_addr()?.parse().unwrap();
        assert_eq!(peer.is_ipv6(), local.is_ipv6());
        stream.read_u8().await
    });
    dialled.unwrap().map_err(|error| error.kind())
}

fn quiet() -> SimWorld {
    SimWorld::new_with_network_config(NetworkConfiguration::disabled()).unwrap()
}

#[test]
fn every_process_has_an_address_of_each_family() {
    let world = quiet();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    assert_eq!(server.addresses(), [ip("10.0.0.1"), ip("fd00::1")]);
    assert_eq!(client.addresses(), [ip("10.0.0.2"), ip("fd00::2")]);
    let seen = answer(&server, "[::]:80");
    for addr in ["server:80", "10.0.0.1:80", "[fd00::1]:80"] {
        assert_eq!(dial(&world, &client, addr), Ok(7), "{addr}");
    }
    let from: Vec<IpAddr> = seen.borrow().iter().map(SocketAddr::ip).collect();
    assert_eq!(from, [ip("10.0.0.2"), ip("10.0.0.2"), ip("fd00::2")]);
}

#[test]
fn a_listener_of_one_family_is_not_reached_by_the_other() {
    let world = quiet();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    answer(&server, "0.0.0.0:80");
    answer(&server, "[fd00::1]:81");
    let refused = Err(ErrorKind::ConnectionRefused);
    assert_eq!(dial(&world, &client, "10.0.0.1:80"), Ok(7));
    assert_eq!(dial(&world, &client, "[fd00::1]:80"), refused);
    assert_eq!(dial(&world, &client, "[fd00::1]:81"), Ok(7));
    assert_eq!(dial(&world, &client, "10.0.0.1:81"), refused);
}

#[test]
fn a_process_with_a_chosen_address_has_that_one_only() {
    let world = quiet();
    let client = world.add_process("client");
    let server = world
        .add_process_with_ip("server", ip("2001:470::7"))
        .unwrap();
    assert_eq!(server.addresses(), [ip("2001:470::7")]);
    answer(&server, "server:80");
    for addr in ["server:80", "[2001:470::7]:80"] {
        assert_eq!(dial(&world, &client, addr), Ok(7), "{addr}");
    }
    answer(&client, "client:80");
    let unreachable = dial(&world, &server, "client:80");
    assert_eq!(unreachable, Err(ErrorKind::NetworkUnreachable));
    assert_eq!(
        dial(&world, &server, "[fd00::1]:80"),
        Err(ErrorKind::ConnectionRefused)
    );
}

#[test]
fn a_chosen_address_is_refused_if_it_is_taken_or_no_hosts() {
    let world = quiet();
    let first = world.add_process("first");
    assert_eq!(
        world.add_process_with_ip("second", first.ip()).unwrap_err(),
        ProcessAddressError::AddressTaken {
            ip: first.ip(),
            owner: "first".into()
        }
    );
    assert!(matches!(
        world.add_process_with_ip("first", ip("10.1.0.0")),
        Err(ProcessAddressError::NameTaken { .. })
    ));
    for text in [
        "0.0.0.0",
        "::",
        "127.0.0.1",
        "::1",
        "224.0.0.1",
        "100.64.0.1",
        "2001:db8::1",
    ] {
        let refused = world.add_process_with_ip("second", ip(text));
        let expected = ProcessAddressError::Unusable { ip: ip(text) };
        assert_eq!(refused.unwrap_err(), expected, "{text}");
    }
    let chosen = world.add_process_with_ip("chosen", ip("10.0.0.2")).unwrap();
    let next = world.add_process("next");
    assert_eq!((chosen.ip(), next.ip()), (ip("10.0.0.2"), ip("10.0.0.3")));
}

fn translated(seed: u64) -> SimWorld {
    let config = NetworkConfiguration {
        nat_addresses: true,
        ..NetworkConfiguration::disabled()
    };
    SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
}

#[test]
fn behind_a_translator_an_acceptor_sees_an_address_that_nobody_can_dial() {
    let world = translated(1);
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let seen = answer(&server, "[::]:80");
    for addr in ["server:80", "[fd00::1]:80", "server:80"] {
        assert_eq!(dial(&world, &client, addr), Ok(7));
    }
    let seen = seen.borrow();
    for displayed in seen.iter() {
        assert!((40_000..=60_000).contains(&displayed.port()), "{displayed}");
        match displayed.ip() {
            IpAddr::V4(v4) => assert_eq!(v4.octets()[..2], [100, 64], "{displayed}"),
            IpAddr::V6(v6) => assert_eq!(v6.segments()[..2], [0x2001, 0xdb8], "{displayed}"),
        }
    }
    assert_ne!(seen[0], seen[2], "each connection has its own");
    let back = dial(&world, &server, &seen[0].to_string());
    assert_eq!(back, Err(ErrorKind::HostUnreachable));
}

#[test]
fn a_translator_shows_the_loopback_address_as_it_is() {
    let world = translated(2);
    let server = world.add_process("server");
    let seen = answer(&server, "127.0.0.1:80");
    assert_eq!(dial(&world, &server, "127.0.0.1:80"), Ok(7));
    assert_eq!(seen.borrow()[0].ip(), ip("127.0.0.1"));
}

#[test]
fn faults_find_the_processes_behind_a_translator() {
    let world = translated(3);
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let network = server.network_provider();
    let end = server.task_provider().spawn_task("reader", async move {
        let listener = network.bind("server:80").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap_err().kind()
    });
    let network = client.network_provider();
    client.task_provider().spawn_task("holder", async move {
        let _stream = network.connect("server:80").await.unwrap();
        std::future::pending::<()>().await;
    });
    world.run_until_empty().unwrap();
    let connection = world.connections()[0];
    assert_eq!(connection.dialer(), client.id());
    assert_eq!(connection.acceptor(), server.id());
    world.kill(client.id(), KillKind::Crash);
    assert_eq!(world.block_on(end).unwrap(), Ok(ErrorKind::ConnectionReset));
}

#[test]
fn without_a_translator_nothing_is_drawn_for_it() {
    let digest = |config| {
        let world = SimWorld::new_with_network_config(config).unwrap();
        let (server, client) = (world.add_process("server"), world.add_process("client"));
        let seen = answer(&server, "server:80");
        assert_eq!(dial(&world, &client, "server:80"), Ok(7));
        let seen = seen.borrow()[0].ip();
        (world.digest(), seen)
    };
    let (off, seen) = digest(NetworkConfiguration::disabled());
    assert_eq!(seen, ip("10.0.0.2"));
    let on = NetworkConfiguration {
        nat_addresses: true,
        ..NetworkConfiguration::disabled()
    };
    assert_ne!(digest(on).0, off);
}
