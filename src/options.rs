//! Command line of the operator. Every flag has a variable of the environment as well.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use streamjob_api::spec::ImagePullPolicy;

/// Keeps stream-processing jobs on Kubernetes as their resources say.
#[derive(Debug, Parser)]
#[command(name = "streamjob-operator", version, about)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the controllers.
    Run(Box<Run>),
    /// Prints the custom resource definitions, as in crds/.
    Crds,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Namespaces to look after, separated by commas; all if empty.
    #[arg(long, env = "STREAMJOB_OPERATOR_NAMESPACES", value_delimiter = ',', help_heading = "What")]
    pub namespaces: Vec<String>,
    /// Image of jobs that name none.
    #[arg(
        long,
        env = "STREAMJOB_OPERATOR_ENGINE_IMAGE",
        default_value = concat!("docker.io/streamjob/engine:", env!("CARGO_PKG_VERSION")),
        help_heading = "What"
    )]
    pub engine_image: String,
    /// When that image is pulled; as Kubernetes decides if absent.
    #[arg(long, env = "STREAMJOB_OPERATOR_IMAGE_PULL_POLICY", value_enum, help_heading = "What")]
    pub image_pull_policy: Option<PullPolicy>,
    /// The operator's own namespace: where its lease and its key are. By default the one of its service account or context.
    #[arg(long, env = "POD_NAMESPACE", help_heading = "Who")]
    pub namespace: Option<String>,
    /// Name of this process among the replicas.
    #[arg(long, env = "POD_NAME", default_value = "streamjob-operator", help_heading = "Who")]
    pub pod_name: String,
    /// Secret with the key from which the jobs' tokens derive; made if it does not exist.
    #[arg(long, env = "STREAMJOB_OPERATOR_KEY_SECRET", default_value = "streamjob-operator-key", help_heading = "Who")]
    pub key_secret: String,
    /// Lease by which one of several replicas acts.
    #[arg(long, env = "STREAMJOB_OPERATOR_LEASE", default_value = "streamjob-operator", help_heading = "Who")]
    pub lease: String,
    /// Where /metrics is served.
    #[arg(long, env = "STREAMJOB_OPERATOR_METRICS_ADDR", default_value = "0.0.0.0:8080", help_heading = "How")]
    pub metrics_addr: SocketAddr,
    /// Where /livez and /readyz are served; may be the same address.
    #[arg(long, env = "STREAMJOB_OPERATOR_HEALTH_ADDR", default_value = "0.0.0.0:8081", help_heading = "How")]
    pub health_addr: SocketAddr,
    /// What is logged, as in `info` or `info,streamjob_operator=debug`.
    #[arg(long, env = "STREAMJOB_OPERATOR_LOG", default_value = "info", help_heading = "How")]
    pub log: String,
    /// How it is logged.
    #[arg(long, env = "STREAMJOB_OPERATOR_LOG_FORMAT", value_enum, default_value = "json", help_heading = "How")]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

/// Spelled as in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl From<PullPolicy> for ImagePullPolicy {
    fn from(policy: PullPolicy) -> ImagePullPolicy {
        match policy {
            PullPolicy::Always => ImagePullPolicy::Always,
            PullPolicy::IfNotPresent => ImagePullPolicy::IfNotPresent,
            PullPolicy::Never => ImagePullPolicy::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn namespaces_are_a_list() {
        let options = Options::parse_from(["x", "run", "--namespaces", "a,b", "--image-pull-policy", "IfNotPresent"]);
        let Command::Run(run) = options.command else { panic!("{options:?}") };
        assert_eq!(run.namespaces, ["a", "b"]);
        assert_eq!(run.image_pull_policy, Some(PullPolicy::IfNotPresent));
    }
}
