//! Objects that have to be there for the job as a whole, and those that nobody needs any more.

use super::context::{Context, deletions, revision_of};
use super::draft::Draft;
use super::effect::{Child, ChildKind, Deletion, Effect};
use crate::api::Savepoint;
use crate::resources::shared_children;
use k8s_openapi::api::core::v1::{Pod, Service};
use std::collections::BTreeSet;
use std::time::Duration;

const KEPT_REVISIONS: usize = 10;
/// Beyond its grace a pod ends at once, unless its node is lost.
const BEYOND_GRACE: Duration = Duration::from_secs(30);

pub fn plan(context: &Context, draft: &mut Draft) {
    // What is in the status that was read, not in the one to come.
    let operation = context.operation();
    if operation.is_none() && context.status.current_revision.is_none() {
        // Without any revision of its own the status says nothing about those that others may have begun since.
        if context.status.last_revision.is_some() {
            draft.effects.extend(old_workloads(context, &BTreeSet::new()));
        }
        return;
    }
    let mut effects = shared(context);
    effects.append(&mut draft.effects);
    draft.effects = effects;
    let mut used: BTreeSet<i64> = context.status.current_revision.into_iter().collect();
    if let Some(operation) = operation {
        used.extend(operation.from_revision.into_iter().chain(operation.to_revision));
    } else if context.status.suspended {
        used.clear();
    }
    draft.effects.extend(old_workloads(context, &used));
    draft.effects.extend(old_revisions(context, &used));
    if context.status.ended.is_some() && operation.is_none() {
        let sets = context.observed.children.stateful_sets.iter().map(|set| (ChildKind::StatefulSet, &set.metadata));
        draft.effects.extend(deletions(sets, |metadata| revision_of(metadata) == context.status.current_revision));
    }
    draft.effects.extend(stuck_pods(context));
}

fn shared(context: &Context) -> Vec<Effect> {
    let current = context.status.current_revision;
    let children = shared_children(&context.observed.job, current, context.settings).into_iter();
    children
        .filter_map(|child| match &child {
            Child::Service(service) if selects_another(context, service) => Some(Effect::Apply(child)),
            _ if context.exists(&child) => None,
            _ => Some(Effect::Create(child)),
        })
        .collect()
}

fn selects_another(context: &Context, wanted: &Service) -> bool {
    let selector = |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.clone());
    let mut services = context.observed.children.services.iter();
    services.any(|found| found.metadata.name == wanted.metadata.name && selector(found) != selector(wanted))
}

fn old_workloads(context: &Context, used: &BTreeSet<i64>) -> Vec<Effect> {
    let children = &context.observed.children;
    let old = |metadata: &_| revision_of(metadata).is_some_and(|revision| !used.contains(&revision));
    let mut effects = deletions(children.deployments.iter().map(|it| (ChildKind::Deployment, &it.metadata)), old);
    effects.extend(deletions(children.stateful_sets.iter().map(|it| (ChildKind::StatefulSet, &it.metadata)), old));
    effects.extend(deletions(children.services.iter().map(|it| (ChildKind::Service, &it.metadata)), old));
    effects.extend(deletions(children.config_maps.iter().map(|it| (ChildKind::ConfigMap, &it.metadata)), old));
    effects
}

fn old_revisions(context: &Context, used: &BTreeSet<i64>) -> Vec<Effect> {
    let status = &context.status;
    let mut kept = used.clone();
    kept.extend([status.current_revision, status.target_revision, status.stable_revision].into_iter().flatten());
    kept.extend(context.revisions.keys().rev().take(KEPT_REVISIONS));
    let revisions = context.observed.children.revisions.iter();
    deletions(revisions.map(|it| (ChildKind::ControllerRevision, &it.metadata)), |metadata| {
        revision_of(metadata).is_some_and(|revision| !kept.contains(&revision))
    })
}

/// Pods on lost nodes: nobody says that they have ended, and their names stay taken.
pub fn stuck_pods(context: &Context) -> Vec<Effect> {
    let stuck = |pod: &&Pod| {
        let due = pod.metadata.deletion_timestamp.as_ref();
        due.is_some_and(|due| context.now > due.0 && context.elapsed(due.0) >= BEYOND_GRACE)
    };
    let pods = context.observed.children.pods.iter().filter(|pod| revision_of(&pod.metadata).is_some()).filter(stuck);
    pods.map(|pod| {
        Effect::Delete(Deletion {
            kind: ChildKind::Pod,
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone(),
            force: true,
        })
    })
    .collect()
}

/// The status, or the way back, refers to these files.
pub fn is_referred_to(context: &Context, savepoint: &Savepoint) -> bool {
    let path = savepoint.status.as_ref().and_then(|status| status.path.as_ref()).or(savepoint.spec.path.as_ref());
    let Some(path) = path else { return false };
    super::savepoints::refers_to(&context.status, path)
}
