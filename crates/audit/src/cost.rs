//! What plans of one network cost, on the server and for guests.

use std::cell::OnceCell;

use jali::Costs;
use jali::guests::GuestSealing;
use jali::parts::guest::Counts;
use jali_leak::Plan;
use jali_protocol::{OperatorForecast, forecast};

use crate::AuditError;
use crate::run::Context;

/// Images that give the ranges of a guest's values.
const RANGE_IMAGES: usize = 16;

/// Prices plans by the built-in costs, so that a price does not depend on the machine.
#[derive(Debug)]
pub struct Pricing<'a> {
    context: &'a Context,
    /// In fixed point, once a guest's price is asked for.
    sealing: OnceCell<GuestSealing<'a>>,
}

impl<'a> Pricing<'a> {
    /// Prices plans of a run's network.
    pub fn new(context: &'a Context) -> Self {
        Self { context, sealing: OnceCell::new() }
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
        Ok(self.sealing()?.clone().original(plan)?.circuit().counts())
    }

    fn sealing(&self) -> Result<&GuestSealing<'a>, AuditError> {
        if let Some(sealing) = self.sealing.get() {
            return Ok(sealing);
        }
        let model = self.context.victim().model();
        let range = model.preprocess().input_range(model.graph().input_shape());
        let images = self.context.some_images(RANGE_IMAGES)?;
        let sealing = GuestSealing::of(model.graph(), &images, Some(range), Default::default())?;
        Ok(self.sealing.get_or_init(|| sealing))
    }
}
