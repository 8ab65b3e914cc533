//! A run: the network, the data and the grid in a folder, and the results of its cells beside them.
//! Every cell is a file of its own, written aside and renamed: what is there is done and is not
//! computed again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`spec`] | what a run is: `run.json` |
//! | [`data`] | the victim, and labelled images |
//! | [`context`] | a run under way |
//! | [`cells`] | results of cells as files |
//! | `attacks` | what one cell computes |
//! | `held` | who works on a cell |
//! | `answers` | the victim's answers, kept |

mod answers;
mod attacks;
pub mod cells;
pub mod context;
pub mod data;
mod held;
pub mod spec;

pub(crate) use cells::burn;
pub use cells::{BURN, CellResult, has_result, merge, read_results, unpack};
pub use context::{Context, Request};
pub use data::{Pool, dataset_for, sensitivities};
pub use spec::{METHOD, Spec, read_spec};
