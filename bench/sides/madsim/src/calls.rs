//! RPC.

use bench_common::{Measurement, ONE_WAY, Sample};
use madsim::net::Endpoint;
use madsim::net::rpc::{Deserialize, Request, Serialize};

use crate::address;
use crate::work::world;

#[derive(Serialize, Deserialize)]
struct Echo(Sample);

impl Request for Echo {
    type Response = Sample;
    const ID: u64 = 1;
}

/// `nodes` clients that call each of as many servers, `window` callers from each to each.
pub fn mesh(nodes: u64, window: u64, count: u64) {
    let each = count / (nodes * nodes * window);
    let runtime = world(1);
    for node in 0..nodes {
        let at = address(0, node);
        runtime.create_node().ip(at.ip()).build().spawn(async move {
            let endpoint = Endpoint::bind(at).await.unwrap();
            endpoint.add_rpc_handler(|echo: Echo| async move { echo.0 });
            std::future::pending::<()>().await;
        });
    }
    let mut asking = Vec::new();
    for node in 0..nodes {
        let client = runtime.create_node().ip(address(1, node).ip()).build();
        asking.push(client.spawn(async move {
            madsim::time::sleep(ONE_WAY).await;
            let endpoint = Endpoint::bind(address(1, node)).await.unwrap();
            let mut callers = Vec::new();
            for caller in 0..nodes * window {
                let endpoint = endpoint.clone();
                callers.push(madsim::task::spawn(async move {
                    let server = address(0, caller % nodes);
                    for _ in 0..each {
                        let sample = endpoint.call(server, Echo(Sample::new())).await.unwrap();
                        assert_eq!(sample.id, 1_234_567);
                    }
                }));
            }
            for caller in callers {
                caller.await.unwrap();
            }
        }));
    }
    let measurement = Measurement::begin();
    runtime.block_on(async {
        for one in asking {
            one.await.unwrap();
        }
    });
    measurement.end(each * nodes * nodes * window);
}
