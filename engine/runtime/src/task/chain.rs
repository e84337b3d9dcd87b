//! The operators of one task, called one after the other without queues between them.

use crate::exchange::Element;
use crate::exchange::output::Output;
use std::sync::Arc;
use streamjob_dataflow::{Batch, Collector, Operator, OperatorMetrics, TaskError};

/// Where an operator's output goes.
#[derive(Debug, Clone, Copy)]
pub enum Route {
    /// An operator further down in the same chain, and which of its inputs.
    Chained { operator: usize, input: usize },
    /// An exchange.
    Network(usize),
}

pub struct ChainedOperator {
    pub operator: Box<dyn Operator>,
    pub metrics: Arc<OperatorMetrics>,
    pub routes: Vec<Route>,
}

/// Operators in topological order; routes lead only to later ones.
pub struct Chain {
    operators: Vec<ChainedOperator>,
    outputs: Vec<Output>,
}

/// What one operator sees of everything behind it.
struct Downstream<'a> {
    routes: &'a [Route],
    metrics: &'a OperatorMetrics,
    /// Operators after the emitting one; `rest[0]` has index `offset`.
    rest: &'a mut [ChainedOperator],
    offset: usize,
    outputs: &'a mut [Output],
}

impl Chain {
    pub fn new(operators: Vec<ChainedOperator>, outputs: Vec<Output>) -> Chain {
        Chain { operators, outputs }
    }

    /// How many operators there are.
    pub fn count(&self) -> usize {
        self.operators.len()
    }

    pub fn operator(&mut self, index: usize) -> &mut dyn Operator {
        self.operators[index].operator.as_mut()
    }

    pub fn outputs(&mut self) -> &mut [Output] {
        &mut self.outputs
    }

    /// Runs `call` on one operator with everything behind it as its collector.
    pub fn with<T>(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut dyn Operator, &mut dyn Collector) -> Result<T, TaskError>,
    ) -> Result<T, TaskError> {
        let (head, rest) = self.operators.split_at_mut(index + 1);
        let current = &mut head[index];
        let mut downstream = Downstream {
            routes: &current.routes,
            metrics: &current.metrics,
            rest,
            offset: index + 1,
            outputs: &mut self.outputs,
        };
        call(current.operator.as_mut(), &mut downstream)
    }

    /// Hands a batch to one operator.
    pub fn process(&mut self, index: usize, input: usize, batch: Batch) -> Result<(), TaskError> {
        OperatorMetrics::add(&self.operators[index].metrics.records_in, batch.len());
        self.with(index, |operator, out| operator.process(input, batch, out))
    }

    /// A batch that a source emits: to every route.
    pub fn emit(&mut self, routes: &[Route], metrics: &OperatorMetrics, batch: Batch) -> Result<(), TaskError> {
        Downstream { routes, metrics, rest: &mut self.operators, offset: 0, outputs: &mut self.outputs }.emit(batch)
    }

    pub fn emit_watermark(
        &mut self,
        routes: &[Route],
        metrics: &OperatorMetrics,
        watermark: i64,
    ) -> Result<(), TaskError> {
        Downstream { routes, metrics, rest: &mut self.operators, offset: 0, outputs: &mut self.outputs }
            .emit_watermark(watermark)
    }

    pub fn emit_idle(&mut self, routes: &[Route], metrics: &OperatorMetrics, idle: bool) -> Result<(), TaskError> {
        Downstream { routes, metrics, rest: &mut self.operators, offset: 0, outputs: &mut self.outputs }.emit_idle(idle)
    }

    /// Event time at the head's input.
    pub fn watermark(&mut self, index: usize, watermark: i64) -> Result<(), TaskError> {
        let (head, rest) = self.operators.split_at_mut(index + 1);
        deliver_watermark(&mut head[index], rest, index + 1, &mut self.outputs, watermark)
    }

    pub fn idle(&mut self, index: usize, idle: bool) -> Result<(), TaskError> {
        let (head, rest) = self.operators.split_at_mut(index + 1);
        deliver_idle(&mut head[index], rest, index + 1, &mut self.outputs, idle)
    }

    pub fn broadcast(&mut self, element: &Element) -> Result<(), TaskError> {
        for output in &mut self.outputs {
            output.broadcast(element)?;
        }
        Ok(())
    }
}

fn deliver_watermark(
    current: &mut ChainedOperator,
    rest: &mut [ChainedOperator],
    offset: usize,
    outputs: &mut [Output],
    watermark: i64,
) -> Result<(), TaskError> {
    let mut downstream = Downstream { routes: &current.routes, metrics: &current.metrics, rest, offset, outputs };
    current.operator.on_watermark(watermark, &mut downstream)?;
    // The end of time passes even those that make their own watermarks.
    if !current.operator.makes_watermarks() || watermark == i64::MAX {
        downstream.emit_watermark(watermark)?;
    }
    Ok(())
}

fn deliver_idle(
    current: &mut ChainedOperator,
    rest: &mut [ChainedOperator],
    offset: usize,
    outputs: &mut [Output],
    idle: bool,
) -> Result<(), TaskError> {
    if current.operator.makes_watermarks() {
        return Ok(());
    }
    Downstream { routes: &current.routes, metrics: &current.metrics, rest, offset, outputs }.emit_idle(idle)
}

impl Downstream<'_> {
    /// The operator at an absolute index, with what is behind it.
    fn at(&mut self, operator: usize) -> (&mut ChainedOperator, &mut [ChainedOperator], &mut [Output]) {
        let (head, rest) = self.rest.split_at_mut(operator - self.offset + 1);
        let last = head.len() - 1;
        (&mut head[last], rest, self.outputs)
    }
}

impl Collector for Downstream<'_> {
    fn emit(&mut self, batch: Batch) -> Result<(), TaskError> {
        if batch.is_empty() {
            return Ok(());
        }
        OperatorMetrics::add(&self.metrics.records_out, batch.len());
        for index in 0..self.routes.len() {
            match self.routes[index] {
                Route::Network(output) => self.outputs[output].send(batch.clone())?,
                Route::Chained { operator, input } => {
                    let (current, rest, outputs) = self.at(operator);
                    OperatorMetrics::add(&current.metrics.records_in, batch.len());
                    let mut downstream = Downstream {
                        routes: &current.routes,
                        metrics: &current.metrics,
                        rest,
                        offset: operator + 1,
                        outputs,
                    };
                    current.operator.process(input, batch.clone(), &mut downstream)?;
                }
            }
        }
        Ok(())
    }

    fn emit_watermark(&mut self, watermark: i64) -> Result<(), TaskError> {
        self.metrics.watermark.store(watermark, std::sync::atomic::Ordering::Relaxed);
        for index in 0..self.routes.len() {
            match self.routes[index] {
                Route::Network(output) => self.outputs[output].broadcast(&Element::Watermark(watermark))?,
                Route::Chained { operator, .. } => {
                    let (current, rest, outputs) = self.at(operator);
                    deliver_watermark(current, rest, operator + 1, outputs, watermark)?;
                }
            }
        }
        Ok(())
    }

    fn emit_idle(&mut self, idle: bool) -> Result<(), TaskError> {
        for index in 0..self.routes.len() {
            match self.routes[index] {
                Route::Network(output) => self.outputs[output].broadcast(&Element::Idle(idle))?,
                Route::Chained { operator, .. } => {
                    let (current, rest, outputs) = self.at(operator);
                    deliver_idle(current, rest, operator + 1, outputs, idle)?;
                }
            }
        }
        Ok(())
    }
}
