//! Binding, connecting and what addresses the ends see.

use moonpool_foundation::{NetworkProvider, Providers, TcpListenerTrait, TcpStreamTrait};
use tokio::io::AsyncWriteExt;

use super::{Hosts, cases, port_of};

cases! {
    connecting_to_a_port_nobody_bound_is_refused => [
        "connect to a port that was freed: ConnectionRefused",
        "connect to port 0: ConnectionRefused",
    ];
    binding_twice_is_an_error_until_the_listener_is_gone => [
        "bind: Ok",
        "bind the same port: AddrInUse",
        "bind the same port again: AddrInUse",
        "bind after the listener is gone: Ok",
    ];
    port_zero_binds_a_free_port => [
        "bind: Ok",
        "bind: Ok",
        "ip is the one asked for: true",
        "port is chosen: true",
        "ports differ: true",
        "connect to local_addr: Ok",
    ];
    binding_a_foreign_address_is_an_error => ["bind: AddrNotAvailable"];
    malformed_addresses_are_invalid_input => [
        "bind \"\": InvalidInput",
        "connect \"\": InvalidInput",
        "bind \"10.0.0.1\": InvalidInput",
        "connect \"10.0.0.1\": InvalidInput",
        "bind \"10.0.0.1:\": InvalidInput",
        "connect \"10.0.0.1:\": InvalidInput",
        "bind \"10.0.0.1:http\": InvalidInput",
        "connect \"10.0.0.1:http\": InvalidInput",
        "bind \"10.0.0.1:65536\": InvalidInput",
        "connect \"10.0.0.1:65536\": InvalidInput",
        "bind \"10.0.0.1:-1\": InvalidInput",
        "connect \"10.0.0.1:-1\": InvalidInput",
        "bind \"nameonly\": InvalidInput",
        "connect \"nameonly\": InvalidInput",
    ];
    names_resolve => [
        "bind by name: Ok",
        "local_addr is an ip: true",
        "connect by name: Ok",
        "accept: Ok",
        "peer_addr is the listener's: true",
    ];
    the_wildcard_address_listens_on_every_address => [
        "bind: Ok",
        "local_addr is the wildcard: true",
        "connect by ip: Ok",
        "accept: Ok",
        "the accepted stream has the ip dialled: true",
        "bind the same port by ip: AddrInUse",
    ];
    the_loopback_address_is_the_own_host => [
        "bind: Ok",
        "connect from the same host: Ok",
        "accept: Ok",
        "both ends are at 127.0.0.1: true",
        "connect to the wildcard address: Ok",
        "its peer_addr is the listener's: true",
    ];
    the_ipv6_loopback_address_is_the_own_host_too => [
        "bind: Ok",
        "connect from the same host: Ok",
        "accept: Ok",
        "both ends are at that address: true",
        "bind the same port: AddrInUse",
    ];
    both_ends_agree_on_addresses => [
        "client's local_addr is the server's peer_addr: true",
        "client's local_addr is what accept gave: true",
        "client's peer_addr is the listener's: true",
        "server's local_addr is the listener's: true",
        "client has a port of its own: true",
        "set_nodelay: Ok",
    ];
    connections_outlive_their_listener_and_its_port_is_free => [
        "connect once the listener is gone: ConnectionRefused",
        "read over the old connection: Ok(\"old\")",
        "bind the same port: Ok",
        "connect to the new listener: Ok",
        "accept: Ok",
        "read over the new connection: Ok(\"new\")",
        "read over the old connection again: Ok(\"still\")",
    ];
}

async fn connecting_to_a_port_nobody_bound_is_refused<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    drop(listener);
    let network = hosts.client.network();
    let _refused = table.step(
        "connect to a port that was freed",
        network.connect(&addr).await,
    );
    let port_zero = format!("{}:0", hosts.ip);
    let _refused = table.step("connect to port 0", network.connect(&port_zero).await);
}

async fn binding_twice_is_an_error_until_the_listener_is_gone<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let network = hosts.server.network();
    let first = table.step("bind", network.bind(&format!("{}:0", hosts.ip)).await);
    let first = first.expect("bound");
    let addr = first.local_addr().expect("a bound address");
    let _taken = table.step("bind the same port", network.bind(&addr).await);
    let _taken = table.step("bind the same port again", network.bind(&addr).await);
    drop(first);
    let _free = table.step("bind after the listener is gone", network.bind(&addr).await);
}

async fn port_zero_binds_a_free_port<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let network = hosts.server.network();
    let any = format!("{}:0", hosts.ip);
    let first = table.step("bind", network.bind(&any).await).expect("bound");
    let second = table.step("bind", network.bind(&any).await).expect("bound");
    let addr = first.local_addr().expect("a bound address");
    let port = port_of(&addr);
    let other = port_of(&second.local_addr().expect("a bound address"));
    table.fact(
        "ip is the one asked for",
        addr == format!("{}:{port}", hosts.ip),
    );
    table.fact("port is chosen", port != 0 && other != 0);
    table.fact("ports differ", port != other);
    let _stream = table.step(
        "connect to local_addr",
        hosts.client.network().connect(&addr).await,
    );
}

async fn binding_a_foreign_address_is_an_error<P: Providers>(hosts: Hosts<P>) {
    // An address of the range that is reserved for documentation: no host has it.
    let bound = hosts.server.network().bind("192.0.2.1:0").await;
    let _foreign = hosts.table.step("bind", bound);
}

async fn malformed_addresses_are_invalid_input<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    for addr in [
        "",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:http",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "nameonly",
    ] {
        let bound = hosts.server.network().bind(addr).await;
        let _invalid = table.step(&format!("bind {addr:?}"), bound);
        let connected = hosts.client.network().connect(addr).await;
        let _invalid = table.step(&format!("connect {addr:?}"), connected);
    }
}

async fn names_resolve<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let bound = hosts
        .server
        .network()
        .bind(&format!("{}:0", hosts.name))
        .await;
    let listener = table.step("bind by name", bound).expect("bound");
    let addr = listener.local_addr().expect("a bound address");
    let is_ip = addr.parse::<std::net::SocketAddr>().is_ok();
    table.fact("local_addr is an ip", is_ip);
    let by_name = format!("{}:{}", hosts.name, port_of(&addr));
    let connected = hosts.client.network().connect(&by_name).await;
    let stream = table.step("connect by name", connected).expect("connected");
    let _accepted = table.step("accept", listener.accept().await);
    let same = stream.peer_addr().expect("a peer") == addr;
    table.fact("peer_addr is the listener's", same);
}

async fn the_wildcard_address_listens_on_every_address<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let network = hosts.server.network();
    let listener = table.step("bind", network.bind("0.0.0.0:0").await);
    let listener = listener.expect("bound");
    let addr = listener.local_addr().expect("a bound address");
    let port = port_of(&addr);
    table.fact(
        "local_addr is the wildcard",
        addr == format!("0.0.0.0:{port}"),
    );
    let by_ip = format!("{}:{port}", hosts.ip);
    let connected = hosts.client.network().connect(&by_ip).await;
    let _stream = table.step("connect by ip", connected).expect("connected");
    let accepted = table.step("accept", listener.accept().await);
    let (accepted, _peer) = accepted.expect("accepted");
    table.fact(
        "the accepted stream has the ip dialled",
        accepted.local_addr().expect("an address") == by_ip,
    );
    let _taken = table.step("bind the same port by ip", network.bind(&by_ip).await);
}

async fn the_loopback_address_is_the_own_host<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let network = hosts.server.network();
    let listener = table
        .step("bind", network.bind("127.0.0.1:0").await)
        .expect("bound");
    let addr = listener.local_addr().expect("a bound address");
    let connected = network.connect(&addr).await;
    let client = table
        .step("connect from the same host", connected)
        .expect("connected");
    let accepted = table.step("accept", listener.accept().await);
    let (_server, peer) = accepted.expect("accepted");
    let loopback = peer.starts_with("127.0.0.1:") && client.peer_addr().ok() == Some(addr.clone());
    table.fact("both ends are at 127.0.0.1", loopback);
    let wildcard = format!("0.0.0.0:{}", port_of(&addr));
    let connected = network.connect(&wildcard).await;
    let client = table
        .step("connect to the wildcard address", connected)
        .expect("connected");
    let same = client.peer_addr().ok() == Some(addr);
    table.fact("its peer_addr is the listener's", same);
}

async fn the_ipv6_loopback_address_is_the_own_host_too<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let network = hosts.server.network();
    // Some containers have no IPv6: what is compared there is IPv4, once more.
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let host = if has_ipv6 { "[::1]" } else { "127.0.0.1" };
    let bound = network.bind(&format!("{host}:0")).await;
    let listener = table.step("bind", bound).expect("bound");
    let addr = listener.local_addr().expect("a bound address");
    let connected = network.connect(&addr).await;
    let client = table
        .step("connect from the same host", connected)
        .expect("connected");
    let accepted = table.step("accept", listener.accept().await);
    let (_server, peer) = accepted.expect("accepted");
    let same =
        peer.starts_with(&format!("{host}:")) && client.peer_addr().ok() == Some(addr.clone());
    table.fact("both ends are at that address", same);
    let _refused = table.step("bind the same port", network.bind(&addr).await);
}

async fn both_ends_agree_on_addresses<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let client = hosts.connect(&addr).await;
    let (server, peer) = listener.accept().await.expect("accepted");
    let local = client.local_addr().expect("an address");
    table.fact(
        "client's local_addr is the server's peer_addr",
        local == server.peer_addr().expect("a peer"),
    );
    table.fact("client's local_addr is what accept gave", local == peer);
    table.fact(
        "client's peer_addr is the listener's",
        client.peer_addr().expect("a peer") == addr,
    );
    table.fact(
        "server's local_addr is the listener's",
        server.local_addr().expect("an address") == addr,
    );
    let own_port = port_of(&local) != 0 && local != addr;
    table.fact("client has a port of its own", own_port);
    let _set = table.step("set_nodelay", client.set_nodelay(true));
}

async fn connections_outlive_their_listener_and_its_port_is_free<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let mut old_client = hosts.connect(&addr).await;
    let (mut old_server, _peer) = listener.accept().await.expect("accepted");
    drop(listener);

    let network = hosts.client.network();
    let _refused = table.step(
        "connect once the listener is gone",
        network.connect(&addr).await,
    );
    old_client.write_all(b"old").await.expect("written");
    table
        .read_exact("read over the old connection", &mut old_server, 3)
        .await;
    let bound = hosts.server.network().bind(&addr).await;
    let listener = table.step("bind the same port", bound).expect("bound");
    let connected = network.connect(&addr).await;
    let mut client = table
        .step("connect to the new listener", connected)
        .expect("connected");
    let (mut server, _peer) = table
        .step("accept", listener.accept().await)
        .expect("accepted");
    client.write_all(b"new").await.expect("written");
    table
        .read_exact("read over the new connection", &mut server, 3)
        .await;
    old_client.write_all(b"still").await.expect("written");
    table
        .read_exact("read over the old connection again", &mut old_server, 5)
        .await;
}
