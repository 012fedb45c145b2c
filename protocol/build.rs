//! Generates the ttrpc client and server code from `agent.proto`.

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() {
    println!("cargo:rerun-if-changed=agent.proto");
    let out_dir = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    Codegen::new()
        .out_dir(&out_dir)
        .input("agent.proto")
        .include(".")
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Default::default() })
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true))
        .run()
        .expect("agent.proto compiles");
    // The generated list of modules leaves out the service's.
    std::fs::write(format!("{out_dir}/mod.rs"), "pub mod agent;\npub mod agent_ttrpc;\n")
        .expect("OUT_DIR is writable");
}
