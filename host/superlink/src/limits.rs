//! Bounds on what comes from the network.

/// Bounds on what is accepted from the network. They are checked before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one object as it is transferred. Python cuts arrays into 5 MiB.
    pub object: usize,
    /// Objects of one message.
    pub objects: usize,
    /// Bytes of all arrays of one message.
    pub arrays: u64,
    /// Values of one record, and records of one message.
    pub values: usize,
    /// Bytes of a name.
    pub name: usize,
    /// Dimensions of an array.
    pub dimensions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { object: 8 << 20, objects: 1 << 17, arrays: 32 << 30, values: 1 << 16, name: 1024, dimensions: 16 }
    }
}

impl Limits {
    /// Bytes of an answer that holds a message and the tree of its objects.
    pub(crate) fn answer(&self) -> u64 {
        // An id takes 66 bytes, and each level of the tree up to five for its length.
        (self.objects as u64).saturating_mul(96).saturating_add(1 << 20)
    }
}
