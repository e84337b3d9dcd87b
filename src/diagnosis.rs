//! Why pods do not run: the first cause over all pods of a revision and the events about them. Pure.
//!
//! Kubernetes says it in many places and texts: conditions, container states, events of the pod, of its workload. All of
//! them are read into causes, and the one from which the others follow is the answer, always the same for the same pods.

mod texts;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod};
use serde::Deserialize;
use texts::{image_cause, missing_object, one_line, refusal, start_cause};

/// Why a revision's pods do not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// One of [`REASONS`].
    pub reason: &'static str,
    /// One line.
    pub message: String,
    /// Waiting does not help: the spec has to change.
    pub terminal: bool,
}

macro_rules! reasons {
    ($($name:ident: $text:literal,)+) => {
        /// In the order in which one cause goes before another.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum Reason { $($name,)+ }

        impl Reason {
            const ALL: &[Reason] = &[$(Reason::$name,)+];

            const fn name(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)+ }
            }
        }

        /// Every reason, with what has happened and what to do.
        pub const REASONS: &[(&str, &str)] = &[$((stringify!($name), $text),)+];
    };
}

reasons! {
    InvalidProgram: "The engine cannot run the program: wrong SQL, an unknown table or option, a parallelism above maxParallelism. The message says what and where. Correct the spec.",
    IncompatibleState: "The state that the job goes on from does not fit the new program: operators are gone or their state changed. The message names them. Change the program back, set `upgrade.allowNonRestoredState`, or begin anew with `upgrade.mode: Stateless`.",
    RestoreFailed: "The checkpoint or savepoint to go on from cannot be read: it is missing or damaged, or a finished job left none. Correct `restoreFrom`, or restore the files.",
    Fenced: "A newer revision has taken the job over, so that this one may not go on. Nothing to do.",
    QuotaExceeded: "The namespace's ResourceQuota leaves no room for the pods. Raise the quota, or lower parallelism or resources.",
    PodSecurityRefused: "The namespace's Pod Security level refuses the pods. Without a `podTemplate` they fit the level restricted: take out of it what the message names.",
    PodRefused: "The API server refuses to create the pods: a LimitRange, an admission webhook or policy. The message says why.",
    InvalidImageName: "The image's name cannot be read. Correct `image`.",
    SecretNotFound: "A Secret that the pods need, or a key in it, does not exist. Create it in the job's namespace; the pods then start by themselves.",
    ConfigMapNotFound: "A ConfigMap that the pods need, or a key in it, does not exist. Create it in the job's namespace, or correct `podTemplate`.",
    ContainerConfigError: "The container cannot be made as the pod says. The message says why; most often it comes from `podTemplate`.",
    ImagePullFailed: "The image cannot be pulled: it does not exist, the registry does not answer or wants credentials (`imagePullSecrets`). The running job, if there is one, is untouched.",
    ClaimNotFound: "The PersistentVolumeClaim with the job's state does not exist. Create it, or correct `storage.persistentVolumeClaim.claimName`.",
    ClaimNotBound: "The PersistentVolumeClaim with the job's state has no volume. Look at the claim's events: the StorageClass may be missing, or unable to give volumes that many pods can write (ReadWriteMany).",
    Unschedulable: "No node can take the pods. The message counts the reasons: too little CPU or memory, taints, affinity. Add nodes, or lower resources or parallelism.",
    SchedulingGated: "Something keeps the pods from being scheduled (`schedulingGates`). Remove the gate, or wait for who set it.",
    VolumeMountFailed: "A volume of the pods cannot be mounted. The message says which, and what the storage answers.",
    SandboxFailed: "The node cannot set up the pod, most often its network. Look at the node and its network plugin.",
    ContainerStartFailed: "The container's program cannot be started: the image has no such file, or is made for another processor. Correct `image`.",
    OutOfMemory: "The kernel ended the process because it needed more memory than its limit. Raise `resources.limits.memory`, or lower slots per worker.",
    StorageUnavailable: "The engine reaches the job's storage not at all or without success: address, credentials, bucket or volume. It tries again by itself.",
    StartFailed: "The engine could not start for another reason. The message says which; it tries again by itself, unless its arguments are refused (operator and engine do not fit).",
    CrashLoop: "The process ends again and again. The message has its last words; `kubectl logs --previous` has more.",
    NodeLost: "The pod's node does not answer. Within about two minutes its pods are replaced on other nodes; what may still run on it can write nothing that counts.",
    Evicted: "A node removed the pod, for lack of memory or disk. Set requests that fit what the job needs.",
    PodFailed: "A pod has ended and cannot run again. The message says why.",
}

/// One thing that keeps a pod from running.
struct Cause {
    reason: Reason,
    message: String,
    terminal: bool,
}

impl Cause {
    fn new(reason: Reason, message: impl AsRef<str>) -> Cause {
        Cause { reason, message: one_line(message.as_ref()), terminal: reason == Reason::InvalidImageName }
    }
}

/// How long after its end a pod that is being deleted may still be seen.
const NODE_PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// Events about pods that could not be created are repeated at least that often while it lasts.
const REPEATED_WITHIN: SignedDuration = SignedDuration::from_mins(20);

/// `pods` are those of one revision, and `events` the warnings about them and their workloads, newest last.
pub fn diagnose(pods: &[Pod], events: &[Event], now: Timestamp) -> Option<Diagnosis> {
    let of_pods = pods.iter().filter(|pod| !is_replaced(pod, pods)).flat_map(|pod| {
        let name = pod.metadata.name.clone().unwrap_or_default();
        causes(pod, events, now).into_iter().map(move |cause| (cause, name.clone()))
    });
    let of_workloads = events.iter().filter_map(|event| {
        let cause = creation_refused(event, pods, now)?;
        Some((cause, event.involved_object.name.clone().unwrap_or_default()))
    });
    let found = of_pods.chain(of_workloads);
    let (cause, name) =
        found.min_by(|(one, name), (other, other_name)| (one.reason, name).cmp(&(other.reason, other_name)))?;
    Some(Diagnosis {
        reason: cause.reason.name(),
        message: format!("{name}: {}", cause.message),
        terminal: cause.terminal,
    })
}

/// A pod that has ended stays in sight after its workload has made another.
fn is_replaced(pod: &Pod, pods: &[Pod]) -> bool {
    let owner = |pod: &Pod| {
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
    };
    let over = |pod: &Pod| matches!(phase(pod), "Failed" | "Succeeded");
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    over(pod)
        && owner(pod).is_some()
        && pods.iter().any(|other| owner(other) == owner(pod) && !over(other) && created(other) >= created(pod))
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn causes(pod: &Pod, events: &[Event], now: Timestamp) -> Vec<Cause> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut causes = Vec::new();
    if let Some(deletion) = &pod.metadata.deletion_timestamp {
        // It is on its way out: all that matters is whether it gets there.
        if deletion.0 + NODE_PATIENCE < now {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("its node");
            causes.push(Cause::new(Reason::NodeLost, format!("cannot be deleted, {node} does not answer")));
        }
        return causes;
    }
    if phase(pod) == "Failed" && status.reason.is_some() {
        // The node ended it: what its containers say about that is only a consequence.
        return vec![failed(status.reason.as_deref(), status.message.as_deref())];
    }
    let of_pod: Vec<&Event> = events.iter().filter(|event| concerns(event, pod)).collect();
    if phase(pod) == "Pending" {
        causes.extend(not_scheduled(pod));
        causes.extend(of_pod.iter().rev().find_map(|event| not_set_up(event, pod)));
    }
    let containers = [&status.init_container_statuses, &status.container_statuses];
    for container in containers.into_iter().flatten().flatten() {
        causes.extend(of_container(container, &of_pod));
    }
    causes
}

fn concerns(event: &Event, pod: &Pod) -> bool {
    let object = &event.involved_object;
    match (&object.uid, &pod.metadata.uid) {
        (Some(object), Some(pod)) => object == pod,
        _ => object.kind.as_deref() == Some("Pod") && object.name == pod.metadata.name,
    }
}

fn failed(reason: Option<&str>, message: Option<&str>) -> Cause {
    let message = message.unwrap_or("it gives no cause");
    match reason {
        Some("Evicted") => Cause::new(Reason::Evicted, format!("evicted: {message}")),
        reason => Cause::new(Reason::PodFailed, format!("{}: {message}", reason.unwrap_or("failed"))),
    }
}

fn not_scheduled(pod: &Pod) -> Option<Cause> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let message = condition.message.as_deref().unwrap_or_default();
    let cause = match condition.reason.as_deref() {
        Some("SchedulingGated") => Cause::new(Reason::SchedulingGated, "scheduling is gated"),
        Some("Unschedulable") if message.contains("unbound immediate PersistentVolumeClaims") => {
            Cause::new(Reason::ClaimNotBound, "its PersistentVolumeClaim has no volume; see the claim's events")
        }
        Some("Unschedulable") => match missing_object(message) {
            Some((Reason::ClaimNotFound, what)) => Cause::new(Reason::ClaimNotFound, what),
            _ => {
                // What preemption would do repeats the counts.
                let counts = message.split("preemption:").next().unwrap_or(message).trim_end_matches([' ', ',']);
                let counts = counts.trim_end_matches("no new claims to deallocate");
                Cause::new(Reason::Unschedulable, format!("cannot be scheduled: {counts}"))
            }
        },
        _ => return None,
    };
    Some(cause)
}

/// Volumes and network. Only while the containers wait for them.
fn not_set_up(event: &Event, pod: &Pod) -> Option<Cause> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref().unwrap_or_default();
    let waits = statuses
        .iter()
        .all(|status| waiting(status.state.as_ref()).is_some_and(|(reason, _)| reason == "ContainerCreating"));
    if !waits {
        return None;
    }
    let message = event.message.as_deref()?;
    match event.reason.as_deref()? {
        // The kubelet's summary after two minutes names no cause.
        "FailedMount" if message.contains("timed out waiting for the condition") => None,
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => Some(match missing_object(message) {
            Some((reason, what)) => Cause::new(reason, what),
            None => Cause::new(Reason::VolumeMountFailed, message),
        }),
        "FailedCreatePodSandBox" => Some(Cause::new(Reason::SandboxFailed, message)),
        _ => None,
    }
}

fn waiting(state: Option<&ContainerState>) -> Option<(&str, &str)> {
    let waiting = state?.waiting.as_ref()?;
    Some((waiting.reason.as_deref().unwrap_or_default(), waiting.message.as_deref().unwrap_or_default()))
}

fn of_container(container: &ContainerStatus, events: &[&Event]) -> Vec<Cause> {
    if container.ready {
        return Vec::new();
    }
    let state = container.state.as_ref();
    let ended_now = state.and_then(|state| state.terminated.as_ref());
    let ended_before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let mut causes = Vec::new();
    let waits = waiting(state);
    causes.extend(waits.and_then(|(reason, message)| not_started(reason, message, container, events)));
    let ended = ended_now.or(ended_before);
    if let Some(ended) = ended.filter(|ended| ended.exit_code != 0) {
        causes.extend(last_words(ended, container));
        let crashed = ended_now.is_some() || waits.is_some_and(|(reason, _)| reason == "CrashLoopBackOff");
        if causes.is_empty() && crashed {
            causes.push(crash(ended));
        }
    }
    causes
}

/// What keeps a container from being made.
fn not_started(reason: &str, message: &str, container: &ContainerStatus, events: &[&Event]) -> Option<Cause> {
    let image = container.image.as_str();
    let cause = match reason {
        "InvalidImageName" => {
            Cause::new(Reason::InvalidImageName, format!("{image:?} is no name of an image; correct spec.image"))
        }
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "RegistryUnavailable" | "ImageInspectError" => {
            let pulls = events.iter().rev().filter(|event| event.reason.as_deref() == Some("Failed"));
            let told =
                pulls.filter_map(|event| event.message.as_deref()).find(|text| text.starts_with("Failed to pull"));
            Cause::new(Reason::ImagePullFailed, image_cause(image, reason, message, told))
        }
        "CreateContainerConfigError" => match missing_object(message) {
            Some((reason, what)) => Cause::new(reason, what),
            None => Cause::new(Reason::ContainerConfigError, message),
        },
        "CreateContainerError" | "RunContainerError" => Cause::new(Reason::ContainerStartFailed, start_cause(message)),
        _ => return None,
    };
    Some(cause)
}

/// What the engine writes before it gives up.
#[derive(Deserialize)]
struct LastWords {
    reason: String,
    message: String,
}

/// What a container that ended says of itself, or the kernel of it.
fn last_words(ended: &ContainerStateTerminated, container: &ContainerStatus) -> Option<Cause> {
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Some(Cause::new(Reason::OutOfMemory, "out of memory (OOMKilled); raise resources.limits.memory"));
    }
    let message = ended.message.as_deref().unwrap_or_default();
    if matches!(ended.reason.as_deref(), Some("StartError" | "ContainerCannotRun")) {
        return Some(Cause::new(Reason::ContainerStartFailed, start_cause(message)));
    }
    if container.name != crate::resources::CONTAINER {
        return None;
    }
    // The exit codes are the engine's: 2 and 4 stay the same however often it is tried.
    let terminal = matches!(ended.exit_code, 2 | 4);
    let words = message.lines().rev().find_map(|line| serde_json::from_str::<LastWords>(line.trim()).ok());
    let cause = match words {
        Some(LastWords { reason, message }) => {
            let known = Reason::ALL.iter().copied().find(|known| known.name() == reason);
            Cause::new(known.unwrap_or(Reason::StartFailed), message)
        }
        None if terminal => Cause::new(Reason::StartFailed, last_line(message).unwrap_or("it gives no reason")),
        None => return None,
    };
    Some(Cause { terminal, ..cause })
}

fn crash(ended: &ContainerStateTerminated) -> Cause {
    let how = match ended.exit_code {
        137 => "killed (exit code 137)".to_owned(),
        code => format!("ended with exit code {code}"),
    };
    match last_line(ended.message.as_deref().unwrap_or_default()) {
        Some(line) => Cause::new(Reason::CrashLoop, format!("{how}: {line}")),
        None => Cause::new(Reason::CrashLoop, format!("{how}; see kubectl logs --previous")),
    }
}

/// Of a log: what it calls an error, else what comes last. Hints on how to call a program follow its error.
fn last_line(text: &str) -> Option<&str> {
    let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.clone().find(|line| line.starts_with("error:")).or_else(|| lines.next())
}

/// A workload could not make a pod, and has not made it since.
fn creation_refused(event: &Event, pods: &[Pod], now: Timestamp) -> Option<Cause> {
    if event.reason.as_deref() != Some("FailedCreate") {
        return None;
    }
    let (message, workload) = (event.message.as_deref()?, event.involved_object.name.as_deref()?);
    let at = last_seen(event)?;
    let of_workload = |pod: &&Pod| {
        let rest = pod.metadata.name.as_deref().and_then(|name| name.strip_prefix(workload));
        rest.is_some_and(|rest| rest.starts_with('-'))
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // Times of objects have whole seconds.
    let made_since =
        pods.iter().filter(of_workload).any(|pod| created(pod).is_some_and(|time| time.as_second() >= at.as_second()));
    if made_since || at + REPEATED_WITHIN < now {
        return None;
    }
    let (reason, text) = refusal(message)?;
    Some(Cause::new(reason, text))
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(first).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests;
