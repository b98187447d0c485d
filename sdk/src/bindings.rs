//! Generated from the WIT package: the host's interfaces once, and each exported interface as a world
//! of its own, so that a plugin exports just those it implements. All share the types of the first;
//! the linker merges the worlds into the component's.
#![allow(unreachable_pub, missing_docs, clippy::all)]

pub mod host {
    wit_bindgen::generate!({
        path: "../wit/framehook-plugin-0.2.0",
        world: "framehook:plugin/host-api",
        generate_unused_types: true,
    });
}

macro_rules! exported {
    ($interface:ident, $inline:literal, $world:literal, $export:literal, [$($shared:literal: $module:ident),+]) => {
        pub mod $interface {
            wit_bindgen::generate!({
                path: "../wit/framehook-plugin-0.2.0",
                inline: $inline,
                world: $world,
                pub_export_macro: true,
                export_macro_name: $export,
                with: { $($shared: crate::bindings::host::framehook::plugin::$module),+ },
            });
        }
    };
}
exported!(
    lifecycle,
    "package framehook:sdk; world lifecycle-part { export framehook:plugin/lifecycle@0.2.0; }",
    "framehook:sdk/lifecycle-part",
    "export_lifecycle",
    ["framehook:plugin/types@0.2.0": types]
);
exported!(
    preprocess,
    "package framehook:sdk; world preprocess-part { export framehook:plugin/preprocess@0.2.0; }",
    "framehook:sdk/preprocess-part",
    "export_preprocess",
    ["framehook:plugin/types@0.2.0": types, "framehook:plugin/media@0.2.0": media]
);
exported!(
    postprocess,
    "package framehook:sdk; world postprocess-part { export framehook:plugin/postprocess@0.2.0; }",
    "framehook:sdk/postprocess-part",
    "export_postprocess",
    ["framehook:plugin/types@0.2.0": types, "framehook:plugin/media@0.2.0": media]
);
