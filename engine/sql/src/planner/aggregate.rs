//! `GROUP BY` and `SELECT DISTINCT`.

use super::relation::Relation;
use super::{Naming, Planner};
use datafusion_expr::LogicalPlan;
use datafusion_expr::logical_plan::Aggregate;
use std::sync::Arc;
use streamjob_dataflow::PlanError;

impl Planner<'_> {
    pub(super) fn aggregate(&mut self, _aggregate: &Aggregate, naming: &mut Naming) -> Result<Relation, PlanError> {
        Err(naming.position.error("GROUP BY is not supported yet"))
    }

    pub(super) fn distinct(&mut self, _input: &Arc<LogicalPlan>, naming: &mut Naming) -> Result<Relation, PlanError> {
        Err(naming.position.error("DISTINCT is not supported yet"))
    }
}
