//! Connects that fail though somebody listens.

use std::io::ErrorKind;

use moonpool_foundation::{
    ConnectFailureMode, FaultKind, NetworkConfiguration, NetworkProvider, Providers, TimeProvider,
};

use crate::worlds::{SECOND, quiet, with_sink};

fn failing(mode: ConnectFailureMode, activation: f64, firing: f64) -> NetworkConfiguration {
    let mut config = quiet();
    config.chaos.connect_failure_mode = mode;
    config.chaos.connect_failure_activation = activation;
    config.chaos.connect_failure_firing = firing;
    config
}

/// How 40 connects end: connected, refused, unanswered within ten minutes.
fn outcomes(config: NetworkConfiguration, seed: u64) -> [usize; 3] {
    let (world, client) = with_sink(config, seed);
    let counted = world
        .block_on(async move {
            let mut counted = [0; 3];
            for _ in 0..40 {
                let connect = client.network().connect("server:80");
                let index = match client.time().timeout(600 * SECOND, connect).await {
                    Ok(Ok(_)) => 0,
                    Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => 1,
                    Ok(Err(error)) => panic!("{error}"),
                    Err(_) => 2,
                };
                counted[index] += 1;
            }
            counted
        })
        .unwrap();
    let counts = world.fault_counts();
    assert_eq!(counts.of(FaultKind::ConnectRefused), counted[1] as u64);
    assert_eq!(counts.of(FaultKind::ConnectHang), counted[2] as u64);
    counted
}

#[test]
fn disabled_never_fails() {
    assert_eq!(
        outcomes(failing(ConnectFailureMode::Disabled, 1.0, 1.0), 1),
        [40, 0, 0]
    );
}

#[test]
fn always_fail_refuses_every_connect_that_is_picked() {
    assert_eq!(
        outcomes(failing(ConnectFailureMode::AlwaysFail, 1.0, 1.0), 1),
        [0, 40, 0]
    );
    let [connected, refused, hung] = outcomes(failing(ConnectFailureMode::AlwaysFail, 1.0, 0.5), 1);
    assert!(
        connected > 8 && refused > 8 && hung == 0,
        "{connected} {refused} {hung}"
    );
}

#[test]
fn probabilistic_refuses_some_and_never_answers_others() {
    let [connected, refused, hung] =
        outcomes(failing(ConnectFailureMode::Probabilistic, 1.0, 1.0), 1);
    assert!(
        connected == 0 && refused > 8 && hung > 8,
        "{connected} {refused} {hung}"
    );
}

#[test]
fn only_a_share_of_the_seeds_has_connect_failures_at_all() {
    let mut with = 0;
    for seed in 0..80 {
        let [connected, ..] = outcomes(failing(ConnectFailureMode::AlwaysFail, 0.25, 1.0), seed);
        assert!(
            connected == 0 || connected == 40,
            "seed {seed}: {connected}"
        );
        with += usize::from(connected == 0);
    }
    assert!((10..32).contains(&with), "{with} of 80");
}

#[test]
fn the_default_has_some_in_some_seeds() {
    let config = NetworkConfiguration {
        chaos: NetworkConfiguration::default().chaos,
        ..quiet()
    };
    let mut total = [0; 3];
    for seed in 0..60 {
        let counted = outcomes(config.clone(), seed);
        for (sum, count) in total.iter_mut().zip(counted) {
            *sum += count;
        }
    }
    // A quarter of the seeds, a quarter of their connects, half and half.
    assert!(
        total[0] > 2000 && total[1] > 20 && total[2] > 20,
        "{total:?}"
    );
}
