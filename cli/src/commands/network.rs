//! `husk network`

use anyhow::bail;
use husk_network::{Definition, Lease, NewNetwork};
use husk_sandbox::{network, paths::Dirs, rundir};
use ipnet::IpNet;
use serde::Serialize;

use crate::{
    args::{CreateNetworkArgs, Format, FormatArgs, NamesArgs, NetworkCommand},
    output,
};

pub(crate) async fn run(dirs: &Dirs, command: &NetworkCommand) -> anyhow::Result<u8> {
    match command {
        NetworkCommand::Create(args) => create(dirs, args),
        NetworkCommand::Ls(args) => list(dirs, args),
        NetworkCommand::Inspect(args) => inspect(dirs, args),
        NetworkCommand::Rm(args) => remove(dirs, args),
        NetworkCommand::Prune => prune(dirs).await,
    }
}

fn create(dirs: &Dirs, args: &CreateNetworkArgs) -> anyhow::Result<u8> {
    let mut new =
        NewNetwork { name: args.name.clone(), no_ipv6: args.no_ipv6, mtu: args.mtu, ..Default::default() };
    new.internal = args.internal;
    for subnet in &args.subnet {
        let twice = match subnet {
            IpNet::V4(subnet) => new.subnet.replace(*subnet).is_some(),
            IpNet::V6(subnet) => new.subnet6.replace(*subnet).is_some(),
        };
        if twice {
            bail!("a network has one subnet of each family: {subnet} is one too many");
        }
    }
    for gateway in &args.gateway {
        let twice = match gateway {
            std::net::IpAddr::V4(gateway) => new.gateway.replace(*gateway).is_some(),
            std::net::IpAddr::V6(gateway) => new.gateway6.replace(*gateway).is_some(),
        };
        if twice {
            bail!("a network has one gateway of each family: {gateway} is one too many");
        }
    }
    let network = network::networks(dirs)?.create(&new)?;
    output::print_line(&network.id)?;
    Ok(0)
}

/// A network, for programs.
#[derive(Serialize)]
struct Description {
    #[serde(flatten)]
    network: Definition,
    bridge: String,
    containers: Vec<Lease>,
}

fn describe(dirs: &Dirs, network: Definition) -> anyhow::Result<Description> {
    let mut containers = network::networks(dirs)?.leases(&network)?;
    containers.retain(|lease| rundir::is_alive(dirs, &lease.sandbox));
    Ok(Description { bridge: network.bridge(), network, containers })
}

fn list(dirs: &Dirs, args: &FormatArgs) -> anyhow::Result<u8> {
    let networks = network::networks(dirs)?.list()?;
    let all: Vec<Description> =
        networks.into_iter().map(|network| describe(dirs, network)).collect::<anyhow::Result<_>>()?;
    if args.format == Format::Json {
        output::print_json(&all)?;
        return Ok(0);
    }
    let heading = ["NAME", "ID", "SUBNET", "IPV6 SUBNET", "INTERNAL", "CONTAINERS"].map(String::from);
    let rows = all.iter().map(|Description { network, containers, .. }| {
        [
            network.name.clone(),
            husk_base::id::short(&network.id).to_owned(),
            network.ipv4.subnet.to_string(),
            network.ipv6.map_or_else(String::new, |ipv6| ipv6.subnet.to_string()),
            if network.internal { "yes" } else { "no" }.into(),
            containers.len().to_string(),
        ]
    });
    let table: Vec<_> = std::iter::once(heading).chain(rows).collect();
    output::print_table(&table)?;
    Ok(0)
}

/// Always JSON, as Docker's.
fn inspect(dirs: &Dirs, args: &NamesArgs) -> anyhow::Result<u8> {
    let networks = network::networks(dirs)?;
    let mut found = Vec::new();
    let failed = for_each(&args.names, |name| {
        found.push(describe(dirs, networks.get(name)?)?);
        Ok(())
    });
    output::print_json(&found)?;
    Ok(u8::from(failed))
}

fn remove(dirs: &Dirs, args: &NamesArgs) -> anyhow::Result<u8> {
    let networks = network::networks(dirs)?;
    let failed = for_each(&args.names, |name| {
        networks.remove(name, &|id| rundir::is_alive(dirs, id))?;
        output::print_line(&format!("removed {name}"))
    });
    Ok(u8::from(failed))
}

async fn prune(dirs: &Dirs) -> anyhow::Result<u8> {
    network::repair(dirs).await?;
    for network in network::networks(dirs)?.prune(&|id| rundir::is_alive(dirs, id))? {
        output::print_line(&format!("removed {}", network.name))?;
    }
    Ok(0)
}

/// As Docker does: one name that is wrong does not keep the others. Says whether any was.
fn for_each(names: &[String], mut act: impl FnMut(&str) -> anyhow::Result<()>) -> bool {
    let mut failed = false;
    for name in names {
        if let Err(error) = act(name) {
            output::print_error(&error);
            failed = true;
        }
    }
    failed
}
