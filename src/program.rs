//! The operator's life: sets everything up, waits to be the leader, acts until told to stop or the lease is lost, and leaves
//! in order. What it does meanwhile is the controller's business.

use crate::api::{GROUP, Savepoint, StreamJob, VERSION};
use crate::controller::{self, Context, RECONCILE, World};
use crate::engine::EngineClient;
use crate::error::{Error, causes};
use crate::health::{self, Answers};
use crate::leader::{Election, LeaderToken};
use crate::metrics::{Counts, JobView, Metrics};
use crate::options::Run;
use crate::settings::{Settings, TokenKey};
use crate::{key, kubernetes};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What a pass may still need when everything has to end.
const DRAIN: Duration = Duration::from_secs(RECONCILE.as_secs() - 5);
/// Standing by again would need everything to be put back: starting anew is simpler and sure.
const TAKEN_OVER: &str = "another replica took over";
/// Between attempts to reach an API server that is not there yet.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs until it is told to stop.
///
/// # Errors
/// It cannot start like this, or the lease was lost: whoever started it starts it again.
pub async fn run(options: Run) -> Result<(), Error> {
    let metrics = Metrics::new().map_err(|error| Error::Setup(error.to_string()))?;
    let metrics = Arc::new(metrics);
    let config = kubernetes::config().await?;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = kubernetes::client(&config, metrics.clone())?;
    // Its own connections: a busy controller must not cost the lease.
    let mut election = Election::new(
        kubernetes::client(&config, metrics.clone())?,
        &namespace,
        &options.lease,
        &format!("{}_{}", options.pod_name, uuid::Uuid::new_v4().simple()),
    );
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        api_server = %config.cluster_url,
        namespace,
        watched = if options.namespaces.is_empty() { "all namespaces".into() } else { options.namespaces.join(",") },
        engine_image = options.engine_image,
        "the operator starts"
    );
    let (end, ending) = watch::channel(false);
    let engine = EngineClient::new().map_err(|error| Error::Setup(error.to_string()))?;
    let world = World::new(engine, metrics);
    let state = Arc::new(State { world: world.clone(), leader: election.token(), ending: AtomicBool::new(false) });
    serve(&options, state.clone(), ending.clone()).await?;
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let prepared = async {
        let token_key = start(&client, &options, &namespace).await?;
        controller::watch(&client, &options.namespaces, &world);
        world.wait_until_synced().await;
        tracing::info!(jobs = world.jobs.by_job().names(None).len(), "all watches are in step");
        election.acquire().await;
        Ok::<_, Error>(token_key)
    };
    let token_key = tokio::select! {
        token_key = prepared => token_key?,
        () = &mut stop => {
            election.release().await;
            tracing::info!("told to stop before it was the leader");
            return Ok(());
        }
    };
    tracing::info!("this replica is the leader");
    let context = Context {
        client,
        world: world.clone(),
        settings: Settings {
            engine_image: options.engine_image.clone(),
            image_pull_policy: options.image_pull_policy.map(Into::into),
            token_key,
        },
        leader: election.token(),
        identity: options.pod_name.clone(),
    };
    let acting = controller::run(Arc::new(context), ending);
    tokio::pin!(acting);
    let lost = tokio::select! {
        biased;
        () = &mut stop => {
            tracing::info!("told to stop; what was begun ends first");
            state.ending.store(true, Ordering::Release);
            let _ = end.send(true);
            // Renewing goes on: what ends now still writes.
            tokio::select! {
                _ = timeout(DRAIN, &mut acting) => None,
                () = election.keep() => Some(TAKEN_OVER),
            }
        }
        () = election.keep() => Some(TAKEN_OVER),
        () = &mut acting => Some("the controllers ended by themselves"),
    };
    match lost {
        None => {
            election.release().await;
            tracing::info!("the operator ends");
            Ok(())
        }
        Some(reason) => Err(Error::Setup(format!("the operator ends, to be started again: {reason}"))),
    }
}

/// What has to be there before anything is watched. Waits for an API server that does not answer yet.
async fn start(client: &Client, options: &Run, namespace: &str) -> Result<TokenKey, Error> {
    loop {
        let started = async {
            check_crds(client, &options.namespaces).await?;
            key::read_or_make(client, namespace, &options.key_secret).await
        };
        match started.await {
            Err(error @ Error::ApiUnreachable { .. }) => {
                tracing::warn!(error = %error, "waiting for the API server");
                sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

/// Says what is missing, where a watch would only say 404 for ever.
async fn check_crds(client: &Client, namespaces: &[String]) -> Result<(), Error> {
    let one = ListParams::default().limit(1);
    let found = match namespaces.first() {
        None => {
            let jobs = Api::<StreamJob>::all(client.clone()).list_metadata(&one).await.map(drop);
            match jobs {
                Ok(()) => Api::<Savepoint>::all(client.clone()).list_metadata(&one).await.map(drop),
                failed => failed,
            }
        }
        Some(namespace) => {
            let jobs = Api::<StreamJob>::namespaced(client.clone(), namespace).list_metadata(&one).await.map(drop);
            match jobs {
                Ok(()) => Api::<Savepoint>::namespaced(client.clone(), namespace).list_metadata(&one).await.map(drop),
                failed => failed,
            }
        }
    };
    match found {
        Ok(()) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Error::Setup(format!(
            "the API server does not serve {GROUP}/{VERSION}: install the custom resource definitions first, with \
             `streamjob-operator crds | kubectl apply --server-side -f -` or with the Helm chart"
        ))),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Error::Setup(format!(
            "not allowed to list StreamJobs and Savepoints: {}; give the service account the rights of the Helm chart, or \
             name the namespaces that it may look after with --namespaces",
            status.message
        ))),
        Err(error) => Err(Error::api("list", "StreamJobs and Savepoints", error)),
    }
}

/// SIGTERM or Ctrl-C.
fn stop_signal() -> Result<impl Future<Output = ()>, Error> {
    let failed = |error: std::io::Error| Error::Setup(format!("cannot listen to signals: {}", causes(&error)));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn serve(options: &Run, state: Arc<State>, ending: watch::Receiver<bool>) -> Result<(), Error> {
    let ended = |mut ending: watch::Receiver<bool>| async move {
        // Served until the process ends: whoever asks meanwhile gets an answer.
        while ending.changed().await.is_ok() {}
    };
    let (health, metrics) = (health::health(state.clone()), health::metrics(state));
    if options.health_addr == options.metrics_addr {
        health::serve(options.health_addr, health.merge(metrics), ended(ending)).await?;
    } else {
        health::serve(options.health_addr, health, ended(ending.clone())).await?;
        health::serve(options.metrics_addr, metrics, ended(ending)).await?;
    }
    Ok(())
}

struct State {
    world: Arc<World>,
    leader: LeaderToken,
    ending: AtomicBool,
}

impl Answers for State {
    fn stopped(&self) -> Option<String> {
        self.world.pulse.stopped(self.world.jobs.by_job().names(None).len(), Instant::now())
    }

    fn unready(&self) -> Option<&'static str> {
        if self.ending.load(Ordering::Acquire) {
            Some("ending")
        } else if self.world.is_synced() {
            None
        } else {
            Some("not every watch has listed what there is")
        }
    }

    fn metrics(&self) -> Result<String, String> {
        let world = &self.world;
        let jobs = world.jobs.by_job().all();
        let counts = Counts {
            synced: world.is_synced(),
            leads: self.leader.is_leader(),
            jobs: jobs.len(),
            savepoints: world.savepoints.by_job().names(None).len(),
            backoff: world.backoff.count(),
            coordinators: world.engines.followed(),
        };
        // From one replica alone: two would count everything twice.
        let jobs = if counts.leads { jobs } else { Vec::new() };
        let now = Timestamp::now();
        let views = jobs.into_iter().map(|job| {
            let key = controller::JobKey { namespace: job.namespace().unwrap_or_default(), name: job.name_any() };
            let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let current = job.status.as_ref().and_then(|status| status.current_revision);
            let reachable = current.and_then(|revision| world.engines.is_reachable(&key, revision, created));
            JobView { tally: world.engines.tally(&key), reachable, now, job }
        });
        world.metrics.text(counts, views).map_err(|error| error.to_string())
    }
}
