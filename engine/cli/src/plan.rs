//! `plan`: shows what a job consists of and what it guarantees.

use crate::arguments::PlanArguments;
use crate::data_dir::DataDir;
use crate::error::CliError;
use crate::job::{self, JobFile};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use streamjob_api::config::JobConfig;
use streamjob_dataflow::graph::{Exchange, ExecutionGraph};

pub fn print(arguments: &PlanArguments) -> Result<ExitCode, CliError> {
    let file = JobFile::read(&arguments.job)?;
    let directory = Path::new(".streamjob").join(&file.job.metadata.name);
    let config = file.configure(&DataDir::checkpoints(&directory))?;
    let graph = file.plan(&config, job::wanted_max_parallelism(&config))?;
    // Whoever closed standard output does not want to see more.
    let _ = std::io::stdout().write_all(describe(&config, &graph).as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn describe(config: &JobConfig, graph: &ExecutionGraph) -> String {
    let mut text = format!(
        "job {}: parallelism {}, max parallelism {}, guarantee {}\n",
        config.name,
        config.parallelism,
        graph.plan.max_parallelism,
        job::guarantee_name(job::guarantee(graph, config))
    );
    for (number, (vertex, plan)) in graph.vertices.iter().zip(&graph.plan.vertices).enumerate() {
        text.push_str(&format!("\nvertex {number}, {} subtasks\n", plan.parallelism));
        for (edge, network) in graph.plan.edges.iter().zip(&graph.network_edges) {
            if edge.to as usize == number {
                let exchange = exchange_name(&graph.graph.edges[*network].exchange);
                text.push_str(&format!("  from vertex {} by {exchange}\n", edge.from));
            }
        }
        for &node in &vertex.nodes {
            let node = &graph.graph.nodes[node];
            text.push_str(&format!("  {}  (uid {})\n", node.name, node.uid));
            for state in &node.state {
                text.push_str(&format!("    state {}: {}\n", state.name, state.schema));
            }
        }
    }
    text
}

fn exchange_name(exchange: &Exchange) -> String {
    match exchange {
        Exchange::Forward => "subtask".into(),
        Exchange::Hash(columns) => {
            let columns: Vec<String> = columns.iter().map(usize::to_string).collect();
            format!("key (columns {})", columns.join(", "))
        }
        Exchange::Rebalance => "turns".into(),
        Exchange::Broadcast => "copies to all".into(),
    }
}
