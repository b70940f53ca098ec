pub mod buffer; pub use buffer::{Buffer, ALIGNMENT};
