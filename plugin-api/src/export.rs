//! `export_plugin!`: the one line that makes a library a plugin.

/// Makes the library a fedplug plugin that offers these [`Component`](crate::Component)s.
#[macro_export]
macro_rules! export_plugin {
    ($($component:expr),+ $(,)?) => {
        #[doc(hidden)]
        pub fn __components() -> ::std::vec::Vec<$crate::Component> {
            ::std::vec![$($component),+]
        }
    };
}
