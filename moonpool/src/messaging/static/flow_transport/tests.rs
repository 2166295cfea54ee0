use moonpool_foundation::{TokioProviders, WellKnownId};
use moonpool_traits::JsonCodec;

use super::super::net_notified_queue::SharedNetNotifiedQueue;
use super::super::test_support::{block_on, local_address, local_endpoint, local_transport};
use super::*;
use crate::error::{BuildError, RegisterError};
use crate::{ReplyError, send_request};

fn builder() -> FlowTransportBuilder<
    moonpool_foundation::TokioNetworkProvider,
    moonpool_foundation::TokioTimeProvider,
    moonpool_foundation::TokioTaskProvider,
> {
    FlowTransportBuilder::from_providers(&TokioProviders::new())
}

fn loopback() -> NetworkAddress {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn test_build_listening_address_in_use() {
    block_on(async {
        let first = builder()
            .local_address(loopback())
            .build_listening()
            .await
            .unwrap();
        let taken = first.local_address().unwrap();
        let error = builder()
            .local_address(taken)
            .build_listening()
            .await
            .unwrap_err();
        let BuildError::Bind { address, source } = error else {
            panic!("{error}");
        };
        assert_eq!(address, taken);
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    });
}

#[test]
fn test_build_listening_missing_local_address() {
    block_on(async {
        let error = builder().build_listening().await.unwrap_err();
        assert!(matches!(error, BuildError::MissingLocalAddress));
    });
}

#[test]
fn an_address_that_asks_for_tls_is_refused() {
    block_on(async {
        let tls = loopback().with_flags(NetworkAddress::FLAG_TLS);
        let error = builder()
            .local_address(tls)
            .build_listening()
            .await
            .unwrap_err();
        assert!(matches!(error, BuildError::TlsNotSupported { .. }));
        let client = builder().build();
        let destination = NetworkAddress { port: 4500, ..tls };
        let error = client.get_or_open_peer(&destination).err().unwrap();
        assert!(matches!(error, TransportError::TlsNotSupported { .. }));
        assert_eq!(client.stats().peers, 0);
    });
}

#[test]
fn an_invalid_peer_configuration_is_refused() {
    block_on(async {
        let config = PeerConfig {
            max_payload_bytes: 0,
            ..PeerConfig::default()
        };
        let listening = builder().local_address(loopback()).peer_config(config);
        let error = listening.build_listening().await.unwrap_err();
        assert!(matches!(error, BuildError::PeerConfig(_)));
    });
}

#[test]
fn what_is_no_destination_is_refused() {
    block_on(async {
        let client = builder().build();
        for address in ["0.0.0.0:4500", "127.0.0.1:0"] {
            let endpoint = Endpoint::new(address.parse().unwrap(), UID::new(1, 1));
            let error = client.send_reliable(&endpoint, b"1").unwrap_err();
            assert!(
                matches!(error, TransportError::NoDestination { .. }),
                "{address}"
            );
        }
    });
}

#[test]
fn a_transport_without_an_address_has_no_endpoints() {
    block_on(async {
        let client = builder().build();
        let queue = SharedNetNotifiedQueue::<u32, _>::new(JsonCodec);
        let error = client.add_endpoint(queue.receiver()).unwrap_err();
        assert_eq!(error, RegisterError::NoAddress);
    });
}

#[test]
fn one_way_messages_to_the_own_address_arrive_in_order() {
    block_on(async {
        let transport = local_transport();
        let queue = SharedNetNotifiedQueue::<u32, _>::new(JsonCodec);
        let endpoint = transport.add_endpoint(queue.receiver()).unwrap();
        assert_eq!(endpoint.address, local_address());
        transport.send_reliable(&endpoint, b"1").unwrap();
        transport.send_unreliable(&endpoint, b"2").unwrap();
        assert_eq!(queue.len(), 0);
        assert_eq!((queue.recv().await, queue.recv().await), (Some(1), Some(2)));
        assert!(transport.remove_endpoint(&endpoint.token));
        assert!(queue.is_closed());
    });
}

#[test]
fn local_messages_have_the_limits_of_remote_ones() {
    block_on(async {
        let config = PeerConfig {
            max_payload_bytes: 100,
            reliable_packets: 2,
            ..PeerConfig::default()
        };
        let transport = builder()
            .local_address(local_address())
            .peer_config(config)
            .build();
        let endpoint = local_endpoint(UID::new(7, 7));
        let error = transport.send_reliable(&endpoint, &[0; 97]).unwrap_err();
        assert!(matches!(
            error,
            TransportError::PayloadTooLarge {
                size: 101,
                limit: 100
            }
        ));
        transport.send_reliable(&endpoint, &[0; 96]).unwrap();
        transport.send_reliable(&endpoint, &[0; 96]).unwrap();
        let error = transport.send_reliable(&endpoint, b"").unwrap_err();
        assert!(matches!(error, TransportError::QueueFull));
        let stats = transport.stats();
        assert_eq!((stats.local_packets, stats.local_bytes), (2, 200));
    });
}

#[test]
fn well_known_endpoints_last_and_are_never_taken_over() {
    block_on(async {
        let transport = local_transport();
        let id = WellKnownId::user(16).unwrap();
        let queue = SharedNetNotifiedQueue::<u32, _>::new(JsonCodec);
        transport
            .add_well_known_endpoint(id, queue.receiver())
            .unwrap();
        let token = id.token();
        assert_eq!(
            transport.add_well_known_endpoint(id, queue.receiver()),
            Err(RegisterError::AlreadyRegistered { token })
        );
        assert!(!transport.remove_endpoint(&token));
        assert_eq!(transport.stats().endpoints, 1);
    });
}

#[test]
fn a_well_known_token_without_a_receiver_is_not_found() {
    block_on(async {
        let transport = local_transport();
        let endpoint = local_endpoint(UID::well_known(40));
        let reply = send_request::<_, u32, _, _, _, _>(&transport, &endpoint, 1_u32, JsonCodec);
        assert_eq!(reply.unwrap().await, Err(ReplyError::EndpointNotFound));
        assert_eq!(transport.stats().endpoint_not_found, 1);
    });
}

#[test]
fn peers_are_opened_once_per_address() {
    block_on(async {
        let server = builder()
            .local_address(loopback())
            .build_listening()
            .await
            .unwrap();
        let address = server.local_address().unwrap();
        let client = builder().build();
        let first = client.get_or_open_peer(&address).unwrap();
        let public = address.with_flags(NetworkAddress::FLAG_PUBLIC);
        let second = client.get_or_open_peer(&public).unwrap();
        assert_eq!(first.id(), second.id());
        assert_eq!(client.stats().peers, 1);
    });
}

#[test]
fn every_start_has_an_incarnation_of_its_own() {
    let (first, second) = (builder().build(), builder().build());
    assert_ne!(first.incarnation(), second.incarnation());
}

#[test]
fn a_transport_that_listens_everywhere_tells_its_port() {
    block_on(async {
        let everywhere: NetworkAddress = "0.0.0.0:0".parse().unwrap();
        let hidden = builder().local_address(everywhere).build_listening().await;
        let hidden = hidden.unwrap();
        let bound = hidden.listening_address().unwrap();
        assert!(bound.ip.is_unspecified() && bound.port != 0, "{bound}");
        assert_eq!(hidden.local_address(), None);

        let public = builder()
            .local_address(everywhere)
            .public_address("127.0.0.1:0".parse().unwrap())
            .build_listening()
            .await
            .unwrap();
        let bound = public.listening_address().unwrap();
        let reached = public.local_address().unwrap();
        assert_eq!(
            (reached.port, reached.to_string().starts_with("127.0.0.1:")),
            (bound.port, true)
        );
        assert_eq!(builder().build().listening_address(), None);
    });
}
