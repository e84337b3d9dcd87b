//! The two controllers: reconciles with a limit of time and of number, and what happens after one failed.

use super::act::{act, act_on_savepoint};
use super::observe::{key_of, observe, observe_savepoint};
use super::world::World;
use crate::api::{Savepoint, StreamJob};
use crate::error::{Class, Error};
use crate::leader::LeaderToken;
use crate::metrics::Metrics;
use crate::plan::{plan, plan_savepoint};
use crate::settings::Settings;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config, Error as ControllerError};
use kube::{Client, Resource, ResourceExt};
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// One pass; then its place is another's.
pub const RECONCILE: Duration = Duration::from_secs(30);
/// Passes at once, of each controller.
const CONCURRENCY: u16 = 16;

/// What every pass needs.
pub struct Context {
    pub client: Client,
    pub world: Arc<World>,
    pub settings: Settings,
    pub leader: LeaderToken,
    /// Name of this process in events.
    pub identity: String,
}

impl Context {
    fn metrics(&self) -> &Metrics {
        &self.world.metrics
    }
}

/// Reconciles until `end` is true and what was begun has ended.
pub async fn run(context: Arc<Context>, end: watch::Receiver<bool>) {
    let world = &context.world;
    world.activate();
    let ended = |mut end: watch::Receiver<bool>| async move {
        // Whoever could say so is gone: then it has ended as well.
        let _ = end.wait_for(|end| *end).await;
    };
    let config = Config::default().concurrency(CONCURRENCY);
    let jobs = Controller::for_stream(stream::pending(), world.jobs.store())
        .with_config(config.clone())
        .reconcile_on(world.job_wakes.clone().stream())
        .graceful_shutdown_on(ended(end.clone()))
        .run(reconcile_job, |job, error, context| retry(StreamJob::KIND, &*job, error, &context), context.clone())
        .for_each(|result| report(StreamJob::KIND, result));
    let savepoints = Controller::for_stream(stream::pending(), world.savepoints.store())
        .with_config(config)
        .reconcile_on(world.savepoint_wakes.clone().stream())
        .graceful_shutdown_on(ended(end))
        .run(
            reconcile_savepoint,
            |savepoint, error, context| retry(Savepoint::KIND, &*savepoint, error, &context),
            context.clone(),
        )
        .for_each(|result| report(Savepoint::KIND, result));
    futures::join!(jobs, savepoints);
}

async fn reconcile_job(job: Arc<StreamJob>, context: Arc<Context>) -> Result<Action, Error> {
    guarded(StreamJob::KIND, &*job, &context, async {
        let key = key_of(&job);
        let observed = observe(&context, &job).await;
        let plan = plan(&observed, &context.settings, Timestamp::now());
        if plan.effects.is_empty() {
            tracing::trace!(job = %key, why = plan.why, "nothing to do");
        } else {
            tracing::debug!(job = %key, why = plan.why, effects = plan.effects.len(), "acting");
        }
        act(&context, &job, plan.effects).await?;
        Ok(plan.requeue_after)
    })
    .await
}

async fn reconcile_savepoint(savepoint: Arc<Savepoint>, context: Arc<Context>) -> Result<Action, Error> {
    guarded(Savepoint::KIND, &*savepoint, &context, async {
        let observed = observe_savepoint(&context, &savepoint).await;
        let plan = plan_savepoint(&observed, &context.settings, Timestamp::now());
        if !plan.effects.is_empty() {
            let name = savepoint.name_any();
            tracing::debug!(job = observed.savepoint.spec.job_ref.name, savepoint = name, why = plan.why, "acting");
        }
        act_on_savepoint(&context, &savepoint, observed.job.as_ref(), plan.effects).await?;
        Ok(plan.requeue_after)
    })
    .await
}

/// A pass that is not begun too early, ends in time, and is counted.
async fn guarded<K: Resource>(
    kind: &'static str,
    object: &K,
    context: &Context,
    pass: impl Future<Output = Result<Duration, Error>>,
) -> Result<Action, Error> {
    let counted = context.metrics().reconcile(kind);
    let _pass = context.world.pulse.pass(Instant::now());
    let backoff = &context.world.backoff;
    if let Some(left) = backoff.wait(kind, object.meta(), Instant::now()) {
        counted.ended("waiting");
        return Ok(Action::requeue(left));
    }
    context.leader.check()?;
    let result = timeout(RECONCILE, pass).await.unwrap_or(Err(Error::TimedOut { after: RECONCILE }));
    match result {
        Ok(requeue_after) => {
            backoff.succeeded(kind, object.meta());
            counted.ended("done");
            Ok(Action::requeue(requeue_after))
        }
        Err(error) => {
            counted.ended(if error.class() == Class::Conflict { "conflict" } else { "error" });
            Err(error)
        }
    }
}

fn retry<K: Resource>(kind: &'static str, object: &K, error: &Error, context: &Context) -> Action {
    if error.is_namespace_terminating()
        && let Some(namespace) = &object.meta().namespace
        && context.world.terminates(namespace)
    {
        // Known now: the next plan asks for nothing new.
        return Action::requeue(Duration::ZERO);
    }
    let pause = context.world.backoff.failed(kind, object.meta(), error, Instant::now());
    if error.class() != Class::Conflict && !matches!(error, Error::NotLeader) {
        context.metrics().reconcile_error(kind, error.reason());
    }
    Action::requeue(pause)
}

/// The one place where failures are logged.
async fn report<K, Q>(
    kind: &'static str,
    result: Result<(kube::runtime::reflector::ObjectRef<K>, Action), ControllerError<Error, Q>>,
) where
    K: Resource<DynamicType = ()>,
    Q: std::error::Error + Debug + 'static,
{
    match result {
        Ok(_) | Err(ControllerError::ObjectNotFound(_)) => {}
        Err(ControllerError::ReconcilerFailed(error, object)) => {
            let job = format!("{}/{}", object.namespace.as_deref().unwrap_or_default(), object.name);
            if error.class() == Class::Conflict || matches!(error, Error::NotLeader) {
                tracing::debug!(kind, job, error = %error, "not now; looked at again");
            } else {
                tracing::warn!(kind, job, reason = error.reason(), error = %error, "reconcile failed; it is tried again");
            }
        }
        Err(error) => tracing::error!(kind, error = %error, "the controller failed"),
    }
}
