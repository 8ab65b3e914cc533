//! What plans of one network cost, on the server and for guests.

use jali::Costs;
use jali::guests::GuestSealing;
use jali::parts::guest::Counts;
use jali_leak::Plan;
use jali_model::Tensor;
use jali_protocol::{OperatorForecast, forecast};

use crate::AuditError;
use crate::run::Context;

/// Images that give the ranges of a guest's values.
const RANGE_IMAGES: usize = 16;

/// Prices plans by the built-in costs, so that a price does not depend on the machine.
#[derive(Debug)]
pub struct Pricing<'a> {
    context: &'a Context,
    images: Vec<Tensor>,
}

impl<'a> Pricing<'a> {
    /// Prepares to price plans of a run's network.
    ///
    /// # Errors
    /// [`AuditError`] if the run's images cannot be read.
    pub fn new(context: &'a Context) -> Result<Self, AuditError> {
        Ok(Self { context, images: context.some_images(RANGE_IMAGES)? })
    }

    /// Forecasts every linear layer in the keyed mode.
    ///
    /// # Errors
    /// [`AuditError::Protocol`] for a plan of another network.
    pub fn keyed(&self, plan: &Plan) -> Result<Vec<OperatorForecast>, AuditError> {
        Ok(forecast(self.context.victim().model(), plan, &Costs::default())?)
    }

    /// Counts what an image costs a guest.
    ///
    /// # Errors
    /// [`AuditError::Jali`] for networks that guests cannot use.
    pub fn guest(&self, plan: &Plan) -> Result<Counts, AuditError> {
        let model = self.context.victim().model();
        let range = model.preprocess().input_range(model.graph().input_shape());
        let sealing = GuestSealing::of(model.graph(), &self.images, Some(range), Default::default())?;
        Ok(sealing.original(plan)?.circuit().counts())
    }
}
