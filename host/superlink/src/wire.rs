//! Flower's protobuf messages, as far as they are used here. Field numbers are those of flwr 1.40 to 1.42.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::{Message as Derive, Oneof};

/// The node id of the server's side.
pub(crate) const SUPERLINK: u64 = 1;

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Node {
    #[prost(uint64, tag = "1")]
    pub(crate) node_id: u64,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Metadata {
    #[prost(uint64, tag = "1")]
    pub(crate) run_id: u64,
    #[prost(string, tag = "2")]
    pub(crate) message_id: String,
    #[prost(uint64, tag = "3")]
    pub(crate) src_node_id: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) dst_node_id: u64,
    #[prost(string, tag = "5")]
    pub(crate) reply_to_message_id: String,
    #[prost(string, tag = "6")]
    pub(crate) group_id: String,
    #[prost(double, tag = "7")]
    pub(crate) ttl: f64,
    #[prost(string, tag = "8")]
    pub(crate) message_type: String,
    #[prost(double, tag = "9")]
    pub(crate) created_at: f64,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Failure {
    #[prost(sint64, tag = "1")]
    pub(crate) code: i64,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Message {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Metadata>,
    /// Present and empty in a message that has content; the content itself is an object.
    #[prost(message, optional, tag = "2")]
    pub(crate) content: Option<Nothing>,
    #[prost(message, optional, tag = "3")]
    pub(crate) error: Option<Failure>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ObjectTree {
    #[prost(string, tag = "1")]
    pub(crate) object_id: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) children: Vec<ObjectTree>,
}

// Fleet

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RegisterNode {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) public_key: Bytes,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ActivateNode {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) public_key: Bytes,
    #[prost(double, tag = "2")]
    pub(crate) heartbeat_interval: f64,
}

/// The answer of register-node and activate-node, and the request of deactivate-node.
#[derive(Clone, PartialEq, Derive)]
pub(crate) struct NodeId {
    #[prost(uint64, tag = "1")]
    pub(crate) node_id: u64,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct NodeHeartbeat {
    #[prost(message, optional, tag = "1")]
    pub(crate) node: Option<Node>,
    #[prost(double, tag = "2")]
    pub(crate) heartbeat_interval: f64,
}

/// The answer of both heartbeats and of stop-run.
#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Success {
    #[prost(bool, tag = "1")]
    pub(crate) success: bool,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct FleetPull {
    #[prost(message, optional, tag = "1")]
    pub(crate) node: Option<Node>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct FleetPulled {
    /// The trees of their objects come too, and are not read: the objects say themselves what they consist of.
    #[prost(message, repeated, tag = "2")]
    pub(crate) messages: Vec<Message>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct FleetPush {
    #[prost(message, optional, tag = "1")]
    pub(crate) node: Option<Node>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) messages: Vec<Message>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) trees: Vec<ObjectTree>,
    /// How long the work took, in seconds.
    #[prost(double, repeated, tag = "4")]
    pub(crate) seconds: Vec<f64>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct FleetPushed {
    #[prost(string, repeated, tag = "3")]
    pub(crate) wanted: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) session: String,
}

/// push-object without the object, which is appended as field 4.
#[derive(Clone, PartialEq, Derive)]
pub(crate) struct PushObject {
    #[prost(message, optional, tag = "1")]
    pub(crate) node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub(crate) run_id: u64,
    #[prost(string, tag = "3")]
    pub(crate) object_id: String,
    #[prost(string, tag = "5")]
    pub(crate) session: String,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ObjectStored {
    #[prost(bool, tag = "1")]
    pub(crate) stored: bool,
}

/// The request of pull-object and, since the field numbers are the same, of confirm-message-received.
#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ObjectName {
    #[prost(message, optional, tag = "1")]
    pub(crate) node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub(crate) run_id: u64,
    #[prost(string, tag = "3")]
    pub(crate) object_id: String,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ObjectPulled {
    #[prost(bool, tag = "1")]
    pub(crate) found: bool,
    #[prost(bool, tag = "2")]
    pub(crate) available: bool,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) content: Bytes,
}

// Control

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Fab {
    #[prost(string, tag = "1")]
    pub(crate) hash: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) content: Bytes,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct StartRun {
    #[prost(message, optional, tag = "1")]
    pub(crate) fab: Option<Fab>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RunStarted {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) run_id: Option<u64>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RunId {
    #[prost(uint64, tag = "1")]
    pub(crate) run_id: u64,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ListRuns {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) run_id: Option<u64>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RunList {
    #[prost(btree_map = "uint64, message", tag = "1")]
    pub(crate) runs: BTreeMap<u64, Run>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Run {
    #[prost(uint64, tag = "1")]
    pub(crate) run_id: u64,
    #[prost(string, tag = "5")]
    pub(crate) fab_hash: String,
    #[prost(message, optional, tag = "10")]
    pub(crate) status: Option<RunStatus>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RunStatus {
    #[prost(string, tag = "1")]
    pub(crate) status: String,
    #[prost(string, tag = "2")]
    pub(crate) sub_status: String,
    #[prost(string, tag = "3")]
    pub(crate) details: String,
}

// Runtime

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct AcquireTask {
    /// Hashes of bundles whose tasks are wanted.
    #[prost(string, repeated, tag = "2")]
    pub(crate) fab_hashes: Vec<String>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct TaskAcquired {
    #[prost(message, optional, tag = "1")]
    pub(crate) task: Option<Task>,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Task {
    #[prost(uint64, tag = "3")]
    pub(crate) run_id: u64,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct NodeList {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<NodeInfo>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct NodeInfo {
    #[prost(uint64, tag = "1")]
    pub(crate) node_id: u64,
    /// When it last came online; another text each time.
    #[prost(string, optional, tag = "6")]
    pub(crate) last_activated_at: Option<String>,
    #[prost(bytes = "bytes", tag = "11")]
    pub(crate) public_key: Bytes,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RuntimePush {
    #[prost(message, repeated, tag = "2")]
    pub(crate) messages: Vec<Message>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) trees: Vec<ObjectTree>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RuntimePushed {
    /// Empty where a message was refused.
    #[prost(string, repeated, tag = "1")]
    pub(crate) message_ids: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) wanted: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) session: String,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RuntimePull {
    #[prost(string, repeated, tag = "2")]
    pub(crate) message_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct RuntimePulled {
    /// As in [`FleetPulled`].
    #[prost(message, repeated, tag = "1")]
    pub(crate) messages: Vec<Message>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct PushLogs {
    #[prost(string, repeated, tag = "3")]
    pub(crate) logs: Vec<String>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct TaskOutput {
    #[prost(string, tag = "2")]
    pub(crate) sub_status: String,
    #[prost(string, tag = "3")]
    pub(crate) details: String,
}

// Records

/// A MetricRecord or a ConfigRecord.
#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Items {
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<Item>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Item {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<ItemValue>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ItemValue {
    #[prost(oneof = "OneValue", tags = "1, 2, 3, 4, 5, 6, 21, 22, 23, 24, 25, 26")]
    pub(crate) value: Option<OneValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum OneValue {
    #[prost(double, tag = "1")]
    Double(f64),
    #[prost(sint64, tag = "2")]
    Sint(i64),
    #[prost(uint64, tag = "3")]
    Uint(u64),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(string, tag = "5")]
    String(String),
    #[prost(bytes = "bytes", tag = "6")]
    Bytes(Bytes),
    #[prost(message, tag = "21")]
    Doubles(Doubles),
    #[prost(message, tag = "22")]
    Sints(Sints),
    #[prost(message, tag = "23")]
    Uints(Uints),
    #[prost(message, tag = "24")]
    Bools(Bools),
    #[prost(message, tag = "25")]
    Strings(Strings),
    #[prost(message, tag = "26")]
    ByteStrings(ByteStrings),
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Doubles {
    #[prost(double, repeated, tag = "1")]
    pub(crate) vals: Vec<f64>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Sints {
    #[prost(sint64, repeated, tag = "1")]
    pub(crate) vals: Vec<i64>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Uints {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) vals: Vec<u64>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Bools {
    #[prost(bool, repeated, tag = "1")]
    pub(crate) vals: Vec<bool>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct Strings {
    #[prost(string, repeated, tag = "1")]
    pub(crate) vals: Vec<String>,
}

#[derive(Clone, PartialEq, Derive)]
pub(crate) struct ByteStrings {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) vals: Vec<Bytes>,
}
