//! Generates the ttrpc client and server code from `agent.proto`, and the messages of the others.

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const FILES: [&str; 4] = ["agent.proto", "cri.proto", "pod.proto", "runtimeoptions.proto"];

fn main() {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let out_dir = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    Codegen::new()
        .out_dir(&out_dir)
        .inputs(FILES)
        .include(".")
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Default::default() })
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true))
        .run()
        .expect("the messages compile");
    // The generated list of modules leaves out the service's.
    std::fs::write(
        format!("{out_dir}/mod.rs"),
        "pub mod agent;\npub mod agent_ttrpc;\npub mod cri;\npub mod pod;\npub mod pod_ttrpc;\npub mod runtimeoptions;\n",
    )
    .expect("OUT_DIR is writable");
}
