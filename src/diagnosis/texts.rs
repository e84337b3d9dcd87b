//! Reads the texts of kubelet, scheduler and API server: they say more than their reasons, and say it at length.

use super::Reason;

/// Longer texts are mostly repetition.
const LONGEST: usize = 400;

/// In one line, and not too long.
pub(super) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(['.', ' ']);
    if line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    line.chars().take(LONGEST).chain(['…']).collect()
}

/// Something that a text says does not exist: `secret "kafka" not found`, `couldn't find key password in Secret
/// shop/kafka`, `references non-existent secret key: password`.
pub(super) fn missing_object(text: &str) -> Option<(Reason, String)> {
    const KINDS: [(&str, Reason, &str); 3] = [
        ("secret", Reason::SecretNotFound, "Secret"),
        ("configmap", Reason::ConfigMapNotFound, "ConfigMap"),
        ("persistentvolumeclaim", Reason::ClaimNotFound, "PersistentVolumeClaim"),
    ];
    let lower = text.to_ascii_lowercase();
    for (kind, reason, name) in KINDS {
        if let Some(at) = lower.find(&format!("{kind} \""))
            && let Some((object, rest)) = text[at + kind.len() + 2..].split_once('"')
            && rest.trim_start().starts_with("not found")
        {
            return Some((reason, format!("{name} {object} does not exist; create it")));
        }
        if let Some(at) = lower.find(&format!(" in {kind} "))
            && let Some(key) = lower.find("couldn't find key ").map(|at| at + "couldn't find key ".len())
        {
            let key = text.get(key..at).unwrap_or_default();
            let object = text[at + kind.len() + 5..].split_whitespace().next().unwrap_or_default();
            let object = object.rsplit('/').next().unwrap_or(object);
            return Some((reason, format!("{name} {object} has no key {key}; add it")));
        }
        if let Some(at) = lower.find(&format!("references non-existent {kind} key: ")) {
            let key = text[at..].rsplit(": ").next().unwrap_or_default();
            return Some((reason, format!("a {name} has no key {key}; add it")));
        }
    }
    None
}

/// Why an image does not come. The same words while the kubelet tries and while it waits, so that the message stays.
pub(super) fn image_cause(image: &str, reason: &str, message: &str, told: Option<&str>) -> String {
    if reason == "ErrImageNeverPull" {
        return format!("image {image} is not on the node, and imagePullPolicy is Never; load it or change the policy");
    }
    // While it waits newer kubelets repeat the cause; older ones said it in an event only.
    let message = match message.split_once("ErrImagePull: ") {
        Some((_, cause)) => cause,
        None if message.starts_with("Back-off") || message.is_empty() => told.unwrap_or_default(),
        None => message,
    };
    let lower = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let why = if says(&["no match for platform", "no matching manifest"]) {
        "it is not made for the node's processor"
    } else if says(&["pull qps exceeded"]) {
        "the node pulls too many images at once; it is tried again"
    } else if says(&["toomanyrequests", "too many requests"]) {
        "the registry limits requests; it is tried again"
    } else if says(&[
        "unauthorized",
        "authorization failed",
        "authentication required",
        "denied",
        "forbidden",
        "no basic auth",
    ]) {
        "the registry refuses access, or has no such image; check the name and imagePullSecrets"
    } else if says(&["no such host", "dial tcp", "i/o timeout", "connection refused", "deadline exceeded", "tls: "]) {
        "the registry does not answer; it is tried again"
    } else if says(&["not found", "manifest unknown", "does not exist"]) {
        "the registry has no such image; check name and tag"
    } else if message.is_empty() {
        "see the pod's events"
    } else {
        return format!("cannot pull image {image}: {}", without_rpc(message));
    };
    format!("cannot pull image {image}: {why}")
}

/// `rpc error: code = Unknown desc = cause` is the cause.
fn without_rpc(text: &str) -> &str {
    text.rsplit_once("desc = ").map_or(text, |(_, cause)| cause)
}

/// Why a program cannot be started: the innermost of what the layers of a container runtime say.
pub(super) fn start_cause(message: &str) -> &str {
    let cause = message.rsplit_once("unable to start container process: ").map_or(message, |(_, cause)| cause);
    cause.trim_end_matches(": unknown")
}

/// Why a pod may not be created. `None` for what passes by itself.
pub(super) fn refusal(message: &str) -> Option<(Reason, String)> {
    if let Some(at) = message.find("exceeded quota: ") {
        return Some((Reason::QuotaExceeded, message[at..].to_owned()));
    }
    if let Some(at) = message.find("failed quota: ") {
        return Some((Reason::QuotaExceeded, message[at..].to_owned()));
    }
    if let Some(at) = message.find("violates PodSecurity ") {
        return Some((Reason::PodSecurityRefused, message[at..].to_owned()));
    }
    // Our own account is on its way.
    let passes =
        ["error looking up service account", "is being terminated", "already exists", "object is being deleted"];
    if passes.iter().any(|text| message.contains(text)) {
        return None;
    }
    let refused = message.split_once(" is forbidden: ").map_or(message, |(_, why)| why);
    Some((Reason::PodRefused, format!("may not be created: {refused}")))
}
