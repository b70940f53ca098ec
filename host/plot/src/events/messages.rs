//! The parts of TensorBoard's messages that a scalar needs, from `event.proto`, `summary.proto` and `tensor.proto`,
//! with their field numbers. A Protocol Buffers reader skips unknown fields.

/// An event: everything written at one time.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(message, optional, tag = "5")]
    pub(super) summary: Option<Summary>,
}

/// The values of an event.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Value>,
}

/// A value and its tag. Boxes keep it small, because two bytes of a file can create one.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(float, optional, tag = "2")]
    pub(super) simple_value: Option<f32>,
    #[prost(message, optional, boxed, tag = "8")]
    pub(super) tensor: Option<Box<Tensor>>,
    #[prost(message, optional, boxed, tag = "9")]
    pub(super) metadata: Option<Box<Metadata>>,
}

impl Value {
    /// The TensorBoard plugin that shows it; empty if the writer does not say.
    pub(super) fn plugin_name(&self) -> &str {
        let data = self.metadata.as_ref().and_then(|metadata| metadata.plugin_data.as_ref());
        data.map_or("", |data| &data.plugin_name)
    }
}

/// `SummaryMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin_data: Option<PluginData>,
}

/// `SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub(super) plugin_name: String,
}

/// `TensorProto`. The elements are in `tensor_content` or in the field of their type.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Tensor {
    #[prost(int32, tag = "1")]
    pub(super) dtype: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) tensor_content: Vec<u8>,
    #[prost(float, repeated, tag = "5")]
    pub(super) float_val: Vec<f32>,
    #[prost(double, repeated, tag = "6")]
    pub(super) double_val: Vec<f64>,
    #[prost(int32, repeated, tag = "7")]
    pub(super) int_val: Vec<i32>,
    #[prost(int64, repeated, tag = "10")]
    pub(super) int64_val: Vec<i64>,
}

/// Values of `DataType`, as used in [`Tensor::dtype`].
pub(super) const FLOAT: i32 = 1;
pub(super) const DOUBLE: i32 = 2;
pub(super) const INT32: i32 = 3;
pub(super) const INT64: i32 = 9;
