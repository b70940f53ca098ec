//! Components: the objects that a plugin's constructors return. Each method corresponds to the method of the same name
//! in the trait that authors implement.

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, ROption, RStr, RString, RVec};

use crate::{
    WireClientMessage, WireContext, WireEvaluation, WireMessage, WireParams, WireState, WireTable, WireTask,
    WireUpdate, Wired,
};

/// A model.
#[sabi_trait]
pub trait WireModel: Send {
    fn parameters(&mut self, ctx: &WireContext<'_>) -> Wired<WireParams>;
    /// Returns JSON.
    fn receive(&mut self, global: WireMessage, ctx: &WireContext<'_>) -> Wired<RString>;
    /// Returns JSON.
    fn train(&mut self, tasks: RVec<WireTask>, round: u64, epoch: u64, ctx: &WireContext<'_>) -> Wired<RString>;
    fn evaluate(&mut self, tasks: RVec<WireTask>, ctx: &WireContext<'_>) -> Wired<RVec<WireEvaluation>>;
    fn send(&mut self, ctx: &WireContext<'_>) -> Wired<WireMessage>;
    fn predict(&mut self, task: RStr<'_>, rows: WireTable, ctx: &WireContext<'_>) -> Wired<WireTable>;
    fn export(&mut self, folder: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<RString>>;
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState>;
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()>;
    #[sabi(last_prefix_field)]
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage>;
}

/// A dataset.
#[sabi_trait]
pub trait WireDataset: Send {
    /// Returns JSON.
    fn describe(&mut self, ctx: &WireContext<'_>) -> Wired<RString>;
    fn load(&mut self, client: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<WireTask>>;
    fn prepare(&mut self, folder: RStr<'_>, ctx: &WireContext<'_>) -> Wired<RVec<RString>>;
    fn open_rows(&mut self, file: RStr<'_>, ctx: &WireContext<'_>) -> Wired<()>;
    fn next_rows(&mut self, at_most: u64, ctx: &WireContext<'_>) -> Wired<WireTable>;
    #[sabi(last_prefix_field)]
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage>;
}

/// An aggregator.
#[sabi_trait]
pub trait WireAggregator: Send {
    /// `cohort` is JSON.
    fn begin(&mut self, global: WireMessage, cohort: RString, ctx: &WireContext<'_>) -> Wired<()>;
    /// Stage 0 is the opening, stage 1 the closing.
    fn ask(
        &mut self,
        stage: u8,
        replies: RVec<WireClientMessage>,
        ctx: &WireContext<'_>,
    ) -> Wired<RVec<WireClientMessage>>;
    fn add(&mut self, update: WireUpdate, ctx: &WireContext<'_>) -> Wired<()>;
    fn finish(&mut self, ctx: &WireContext<'_>) -> Wired<WireMessage>;
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState>;
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()>;
    #[sabi(last_prefix_field)]
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage>;
}

/// A filter.
#[sabi_trait]
pub trait WireFilter: Send {
    fn apply(&mut self, message: WireMessage, base: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage>;
    fn answer(&mut self, query: WireMessage, ctx: &WireContext<'_>) -> Wired<ROption<WireMessage>>;
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState>;
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()>;
    #[sabi(last_prefix_field)]
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage>;
}

/// An owned model.
pub type ModelBox = WireModel_TO<'static, RBox<()>>;
/// An owned dataset.
pub type DatasetBox = WireDataset_TO<'static, RBox<()>>;
/// An owned aggregator.
pub type AggregatorBox = WireAggregator_TO<'static, RBox<()>>;
/// An owned filter.
pub type FilterBox = WireFilter_TO<'static, RBox<()>>;
