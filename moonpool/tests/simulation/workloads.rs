//! Servers that execute, and clients that ask and check.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    SimulationMetrics, SimulationReport, SimulationResult, WorkloadTopology,
};
use moonpool::{
    Endpoint, FlowTransport, FlowTransportBuilder, JsonCodec, NetworkAddress, Providers,
    RandomProvider, ReplyError, ReplyFuture, ReplyPromise, TaskProvider, TimeProvider,
    TransportStats, UID, select, send_request, sometimes_assert,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::invariants::RpcInvariants;
use super::messages::{AUDIT, Action, Audit, Done, GOODBYE, Goodbye, NOWHERE, PORT, WORK, Work};
use super::operations::{ClientOp, Weights};

type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

const GRACE: Duration = Duration::from_secs(1);

/// How a server is to live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerPlan {
    /// How often it dies and comes back.
    pub(crate) deaths: u32,
}

/// What survives the server's deaths.
#[derive(Default)]
struct Record {
    executed: BTreeMap<String, Vec<u64>>,
    gone: BTreeSet<String>,
}

enum End {
    EveryoneLeft,
    Killed,
}

pub(crate) async fn server<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
    plan: ServerPlan,
) -> SimulationResult<SimulationMetrics> {
    let ip: IpAddr = topology.my_ip.parse().unwrap();
    let address = NetworkAddress::new(ip, PORT);
    let clients = topology.get_peers_with_prefix("client").len();
    let (time, random) = (providers.time().clone(), providers.random().clone());
    let mut record = Record::default();
    for life in 0..=plan.deaths {
        let is_last = life == plan.deaths;
        let death = Duration::from_millis(random.random_range(20..400));
        let death = if is_last { Duration::MAX / 4 } else { death };
        let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
        let transport = builder.build_listening().await.unwrap();
        sometimes_assert!(multi_node_server_listening, true, "it can be called");
        sometimes_assert!(multi_node_has_clients, clients > 0, "on other nodes");
        match serve(&providers, &transport, &mut record, clients, death).await {
            End::EveryoneLeft => {
                transport.shutdown(GRACE).await;
                check_gauges(&transport.stats());
                break;
            }
            // The transport is dropped where it stands, with whatever it was doing.
            End::Killed => drop(transport),
        }
        let outage = Duration::from_millis(random.random_range(0..300));
        time.sleep(outage).await;
    }
    Ok(SimulationMetrics::default())
}

async fn serve<P: Providers>(
    providers: &P,
    transport: &Rc<Transport<P>>,
    record: &mut Record,
    clients: usize,
    death: Duration,
) -> End {
    let work = transport.register_handler::<Work, _>(WORK, JsonCodec);
    let audit = transport.register_handler::<Audit, _>(AUDIT, JsonCodec);
    let goodbye = transport.register_handler::<Goodbye, _>(GOODBYE, JsonCodec);
    let mut death = Box::pin(providers.time().sleep(death));
    loop {
        select! {
            () = &mut death => return End::Killed,
            Some((request, reply)) = work.recv_with_transport(transport) => {
                let executed = record.executed.entry(request.client.clone()).or_default();
                executed.push(request.id);
                execute(providers, request, reply);
            }
            Some((request, reply)) = audit.recv_with_transport(transport) => {
                let executed = record.executed.get(&request.client).cloned();
                reply.send(executed.unwrap_or_default());
            }
            Some((request, reply)) = goodbye.recv_with_transport(transport) => {
                record.gone.insert(request.client);
                reply.send(true);
                if record.gone.len() == clients {
                    return End::EveryoneLeft;
                }
            }
        }
    }
}

pub(crate) fn execute<P: Providers>(
    providers: &P,
    request: Work,
    reply: ReplyPromise<Done, JsonCodec>,
) {
    sometimes_assert!(rpc_server_received_request, true, "a handler has it");
    sometimes_assert!(
        multi_node_server_received_request,
        true,
        "from another node"
    );
    let drops = request.action == Action::DropPromise;
    sometimes_assert!(rpc_promise_dropped, drops, "as it was told");
    sometimes_assert!(multi_node_server_dropped_promise, drops, "as it was told");
    let answers = request.action == Action::Answer;
    sometimes_assert!(rpc_response_sent, answers, "at once");
    sometimes_assert!(multi_node_server_sent_response, answers, "to another node");
    sometimes_assert!(multi_node_responses_sent, answers, "by one server at least");
    let done = Done {
        client: request.client,
        id: request.id,
    };
    match request.action {
        Action::Answer => reply.send(done),
        Action::AnswerAfter { millis } => {
            let sleep = providers.time().sleep(Duration::from_millis(millis));
            providers.task().spawn_task("late-answer", async move {
                sleep.await;
                reply.send(done);
            });
        }
        Action::DropPromise => drop(reply),
        Action::Refuse => reply.send_error(ReplyError::application(1, "refused")),
    }
}

/// What a client is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) operations: u32,
    pub(crate) weights: Weights,
    /// No server dies: every outcome has to be the one that was asked for.
    pub(crate) undisturbed: bool,
}

/// A client's view of one server.
pub(crate) struct Target<P: Providers> {
    name: String,
    address: NetworkAddress,
    transport: Rc<Transport<P>>,
    time: P::Time,
    pending: VecDeque<(u64, ReplyFuture<Done, JsonCodec>)>,
    invariants: RpcInvariants,
}

impl<P: Providers> Target<P> {
    fn call<Req: Serialize, Resp>(
        &self,
        token: UID,
        request: Req,
    ) -> Result<ReplyFuture<Resp, JsonCodec>, ReplyError> {
        let endpoint = Endpoint::new(self.address, token);
        Ok(send_request(
            &self.transport,
            &endpoint,
            request,
            JsonCodec,
        )?)
    }

    fn send(&mut self, id: u64, action: Option<Action>) {
        let (client, token) = (self.name.clone(), action.map_or(NOWHERE, |_| WORK));
        let action_or_any = action.unwrap_or(Action::Answer);
        let work = Work {
            client,
            id,
            action: action_or_any,
        };
        let reply = self.call(token, work).unwrap();
        self.invariants.sent(id, action);
        sometimes_assert!(multi_node_client_sent_request, true, "to another node");
        self.pending.push_back((id, reply));
    }

    pub(crate) async fn perform(&mut self, id: u64, op: ClientOp) {
        match op {
            ClientOp::Send(action) => self.send(id, Some(action)),
            ClientOp::SendNowhere => self.send(id, None),
            ClientOp::Await => self.await_oldest().await,
            ClientOp::AwaitWithTimeout { millis } => {
                let Some((id, reply)) = self.pending.pop_front() else {
                    return;
                };
                let limit = Duration::from_millis(millis);
                match self.time.timeout(limit, reply).await {
                    Ok(result) => self.invariants.ended(&self.name, id, result),
                    Err(_elapsed) => {
                        sometimes_assert!(rpc_timeout_path, true, "a client waited long enough");
                        self.invariants.given_up(id);
                    }
                }
            }
            ClientOp::Forget => {
                if let Some((id, reply)) = self.pending.pop_front() {
                    drop(reply);
                    self.invariants.given_up(id);
                }
            }
            ClientOp::Pause { millis } => self.time.sleep(Duration::from_millis(millis)).await,
        }
    }

    /// One for each server.
    pub(crate) fn all(
        providers: &P,
        topology: &WorkloadTopology,
        transport: &Rc<Transport<P>>,
        servers_die: bool,
    ) -> Vec<Self> {
        let servers = topology.get_peers_with_prefix("server").into_iter();
        let targets = servers.map(|(_, ip)| Self {
            name: format!("client at {}", topology.my_ip),
            address: NetworkAddress::new(ip.parse().unwrap(), PORT),
            transport: transport.clone(),
            time: providers.time().clone(),
            pending: VecDeque::new(),
            invariants: RpcInvariants::with_dying_servers(servers_die),
        });
        targets.collect()
    }

    /// What servers know this client by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn server_ip(&self) -> String {
        self.address.ip.to_string()
    }

    pub(crate) async fn await_all(&mut self) {
        while !self.pending.is_empty() {
            self.await_oldest().await;
        }
    }

    pub(crate) fn check_against(&self, executed: &[u64]) {
        self.invariants.check_against(executed);
    }

    async fn await_oldest(&mut self) {
        if let Some((id, reply)) = self.pending.pop_front() {
            let result = reply.await;
            self.invariants.ended(&self.name, id, result);
        }
    }

    /// Calls until there is an answer. For requests that may be executed twice.
    async fn insist<Req, Resp>(&self, token: UID, request: Req) -> Result<Resp, ReplyError>
    where
        Req: Serialize + Clone,
        Resp: DeserializeOwned,
    {
        loop {
            match self.call(token, request.clone())?.await {
                Err(ReplyError::MaybeDelivered | ReplyError::EndpointNotFound) => {}
                // No outage lasts as long as the patience: the server is gone for good.
                outcome => return outcome,
            }
            self.time.sleep(Duration::from_millis(10)).await;
        }
    }

    async fn finish(&mut self, plan: &ClientPlan) {
        self.await_all().await;
        let client = self.name.clone();
        let executed: Vec<u64> = self.insist(AUDIT, Audit { client }).await.unwrap();
        self.invariants.check_against(&executed);
        if plan.undisturbed {
            self.invariants.check_undisturbed();
        }
        let client = self.name.clone();
        let goodbye: Result<bool, ReplyError> = self.insist(GOODBYE, Goodbye { client }).await;
        assert!(
            matches!(goodbye, Ok(true) | Err(ReplyError::ConnectionFailed)),
            "{goodbye:?}"
        );
    }
}

/// What a client saw, for the scenarios to check that a run was not empty.
pub(crate) struct Seen {
    pub(crate) answered: usize,
    pub(crate) maybe_delivered: usize,
}

pub(crate) async fn client<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
    plan: ClientPlan,
) -> Seen {
    let random = providers.random().clone();
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let mut targets = Target::all(&providers, &topology, &transport, !plan.undisturbed);
    for id in 0..u64::from(plan.operations) {
        let pick = random.random_range(0..targets.len());
        let op = plan.weights.draw(&random);
        targets[pick].perform(id, op).await;
    }
    sometimes_assert!(
        multi_node_has_servers,
        !targets.is_empty(),
        "on other nodes"
    );
    sometimes_assert!(
        multi_node_requests_sent,
        plan.operations > 0,
        "by one client at least"
    );
    let mut seen = Seen {
        answered: 0,
        maybe_delivered: 0,
    };
    for target in &mut targets {
        target.finish(&plan).await;
        seen.answered += target.invariants.answered();
        seen.maybe_delivered += target.invariants.maybe_delivered();
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    seen
}

pub(crate) fn check_gauges(stats: &TransportStats) {
    let gauges = [
        stats.peers,
        stats.incoming_connections,
        stats.incoming_sessions,
        stats.endpoints,
        stats.pending_calls,
        stats.queued_packets,
        stats.queued_bytes,
        stats.local_packets,
        stats.local_bytes,
        stats.tasks,
    ];
    assert_eq!(gauges, [0; 10], "left after shutdown: {stats:?}");
}

/// The campaign passed, and each of these held in some seed.
pub(crate) fn assert_held(report: &SimulationReport, names: &[&str]) {
    report.assert_passed();
    for name in names {
        let results = report.assertion_results.iter();
        let held = results.filter(|result| result.name == *name);
        let held = held.map(|result| result.held).sum::<u64>();
        assert!(held > 0, "{name} was missed: {report}");
    }
}
