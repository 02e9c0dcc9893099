//! MPS v3: the control daemon's newer interface (`nvidia-cuda-mps-control -p 3`), with named servers,
//! namespaces and static partitions, by commands or from a TOML file.
//!
//! Grammar: NVIDIA's MPS documentation, releases 615 and 620 ("MPS v3 Interface", "MPS v3 Namespaces",
//! "MPS v3 Configuration File"). It needs driver 615, CUDA 13.4. What differs from the older commands:
//!
//! * Partitions need no flag at start. Their identifiers are of another form: neither interface knows the
//!   other's. A chunk before Hopper is 2 SMs, where it is 4 under the older commands.
//! * A namespace's percentage holds whatever its clients' environment says; a client is in the namespace
//!   whose directory its `CUDA_MPS_PIPE_DIRECTORY` names. Limits of a server are those of its namespace
//!   `default` alone: other namespaces do not inherit them.
//! * A name has lower-case letters, digits and underscores; any key that is not known is an error.
//!
//! Not published, so neither written nor simulated: how many SMs `include_remainder` adds, what clients
//! gain from `shareable` partitions, `timeslice_pct` of a server, and whether `max_chunks` grows one under
//! load.

use std::fmt::Write as _;

use crate::finding::{ReadError, Weight, line_of};
use crate::found::{Found, Mechanism};
use crate::mps_limits::{self, chunk_cus, memory, memory_share, overruled, percentage, pipe};
use crate::plan::{File, Gpu, Plan, Sharing, slug};

/// The TOML file and the script of one GPU without instances; none where v3 does not express it.
pub(crate) fn emit(plan: &Plan, index: usize, gpu: &Gpu) -> Vec<File> {
    let (percent, chunks): (&[u32], &[u32]) = match &gpu.sharing {
        Sharing::Mps { percent } => (percent, &[]),
        Sharing::Static { chunks } => (&[], chunks),
        _ => return vec![],
    };
    // A tenant with two parts on one GPU has one name, and a name is one namespace.
    let names: Vec<String> = gpu.tenants.iter().map(|t| name_of(&t.name)).collect();
    if names.iter().enumerate().any(|(i, name)| names[..i].contains(name)) {
        return vec![];
    }
    let server = format!("gpu{index}");
    let mut toml = format!(
        "schema_version = \"1.0\"\n\n[servers.{server}]\nactive_thread_percentage = \"100\"\n"
    );
    for (i, tenant) in gpu.tenants.iter().enumerate() {
        let _ = writeln!(toml, "\n[servers.{server}.namespaces.{}]", names[i]);
        let _ = writeln!(
            toml,
            "active_thread_percentage = \"{}\"",
            percent.get(i).copied().unwrap_or(100)
        );
        if let Some(limit) = memory_share(plan, gpu, i) {
            let _ = writeln!(toml, "pinned_memory_limit = \"{limit}M\"");
        }
        if tenant.best_effort {
            toml += "client_priority = \"1\"\n";
        }
    }
    if !chunks.is_empty() {
        let each = plan.device.mps.map_or(1, |m| m.chunk_cus) / chunk_cus(&plan.device, 3).max(1);
        let _ = write!(
            toml,
            "\n[[servers.{server}.devices]]\nuuid = \"{UUID}\"  # start-v3.sh puts it in\n"
        );
        for (name, chunks) in names.iter().zip(chunks) {
            let _ = write!(
                toml,
                "\n  [[servers.{server}.devices.sm_partitions]]\n  name = \"{name}\"\n  chunks = {}\n",
                chunks * each.max(1)
            );
        }
    }
    let head = "# MPS v3, driver 615 or later: start-v3.sh takes the place of start.sh.\n";
    let file = format!("mps/gpu{index}/control-v3.toml");
    vec![plan.file(file, &(head.to_owned() + &toml)), script(plan, index, gpu, &names)]
}

/// Stands for the GPU until the daemon starts.
const UUID: &str = "@UUID@";

fn script(plan: &Plan, index: usize, gpu: &Gpu, names: &[String]) -> File {
    let pipe = pipe(index, None);
    let mut body = format!(
        "set -eu\ncd \"$(dirname \"$0\")\"\n\
         # MPS v3 (driver 615 or later), in place of start.sh: one daemon runs on a node.\n\
         export CUDA_VISIBLE_DEVICES=\"${{GPU:-{index}}}\"\nexport CUDA_MPS_PIPE_DIRECTORY={pipe}\n\
         export CUDA_MPS_LOG_DIRECTORY={pipe}/log\nmkdir -p \"$CUDA_MPS_LOG_DIRECTORY\"\n\
         uuid=\"$(nvidia-smi --query-gpu=uuid --format=csv,noheader -i \"$CUDA_VISIBLE_DEVICES\")\"\n\
         sed \"s/{UUID}/$uuid/\" control-v3.toml > control.toml\n\
         nvidia-cuda-mps-control -d -p 3 -a \"$PWD/control.toml\"\n\
         # A server that failed is not in the list, and its clients would run without limits.\n\
         nvidia-cuda-mps-control server list --format=csv,noheader | grep -q '^gpu{index},'\n"
    );
    let fixed = matches!(gpu.sharing, Sharing::Static { .. });
    for (tenant, name) in gpu.tenants.iter().zip(names) {
        let file = slug(&tenant.name);
        let _ = write!(
            body,
            "# tenant={} gpu={index}\n\
             grep -v -e THREAD_PERCENTAGE -e PIPE_DIRECTORY {file}.env > {file}.env3\n\
             echo \"CUDA_MPS_PIPE_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY/gpu{index}/{name}\" >> {file}.env3\n",
            tenant.name
        );
        if fixed {
            let _ = write!(
                body,
                "partition=\"$(nvidia-cuda-mps-control sm-partition list --server=gpu{index} \
                 --format=csv,noheader | awk -F, '$3 == \"{name}\" {{ print $8 }}')\"\necho \
                 \"CUDA_MPS_SM_PARTITION=$uuid/${{partition:?no partition}}\" >> {file}.env3\n"
            );
        }
    }
    body += "# Start each tenant's processes with its .env3. Stop: nvidia-cuda-mps-control -q\n";
    let head = format!("#!/bin/sh\n{}", plan.comments());
    File { path: format!("mps/gpu{index}/start-v3.sh"), text: head + &body }
}

/// A name as v3 allows it.
fn name_of(tenant: &str) -> String {
    slug(tenant).replace('-', "_")
}

fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.len() <= 64 && name.chars().all(legal)
}

pub(crate) fn recognises(_path: &str, text: &str) -> bool {
    text.lines().any(|l| l.trim_start().starts_with("[servers."))
}

/// Keys that each table has, in releases 615 and 620.
const SERVER: &[&str] = &[
    "allowed_devices",
    "pinned_memory_limit",
    "active_thread_percentage",
    "client_priority",
    "uid",
    "locality_domains",
    "timeslice_pct",
    "namespaces",
    "devices",
];
const NAMESPACE: &[&str] = &[
    "pinned_memory_limit",
    "active_thread_percentage",
    "client_priority",
    "cgroup",
    "cgroup_depth",
    "devices",
];
const DEVICE: &[&str] = &["uuid", "sm_partitions"];
const PARTITION: &[&str] = &["name", "chunks", "include_remainder", "shareable", "max_chunks"];

/// Reads a configuration file of the daemon.
pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let root: toml::Table = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|s| text[..s.start.min(text.len())].lines().count().max(1));
        ReadError::new(path, line, "", e.message())
    })?;
    found.shared_by(Mechanism::Mps);
    for key in root.keys() {
        if !["schema_version", "compute_policy", "servers", "features"].contains(&key.as_str()) {
            unknown(path, text, key, key, found);
        }
    }
    let Some(servers) = root.get("servers").and_then(toml::Value::as_table) else {
        return Err(ReadError::new(path, None, "servers", "is not a table of servers"));
    };
    for (name, server) in servers {
        let Some(server) = server.as_table() else { continue };
        let of = Place { path, text, field: format!("servers.{name}") };
        of.names(name, found);
        of.keys(server, SERVER, found);
        // `gpu1` is what ours are called; others may own every GPU.
        let gpu = name.strip_prefix("gpu").and_then(|n| n.parse::<u32>().ok());
        of.limits(server, ("", None), found)?;
        for (name, namespace) in tables(server.get("namespaces")) {
            let of = Place { field: format!("{}.namespaces.{name}", of.field), ..of.clone() };
            of.names(name, found);
            of.keys(namespace, NAMESPACE, found);
            let who = if name == "default" { ("", None) } else { (name.as_str(), gpu) };
            of.limits(namespace, who, found)?;
        }
        let domains = server.get("locality_domains").and_then(toml::Value::as_bool) == Some(true);
        for device in list(server.get("devices")) {
            let of = Place { field: format!("{}.devices", of.field), ..of.clone() };
            of.keys(device, DEVICE, found);
            for partition in list(device.get("sm_partitions")) {
                let of = Place { field: format!("{}.sm_partitions", of.field), ..of.clone() };
                of.keys(partition, PARTITION, found);
                of.partition(partition, gpu, domains, found)?;
            }
        }
    }
    Ok(())
}

fn tables(value: Option<&toml::Value>) -> impl Iterator<Item = (&String, &toml::Table)> {
    let all = value.and_then(toml::Value::as_table).into_iter().flatten();
    all.filter_map(|(name, v)| Some((name, v.as_table()?)))
}

fn list(value: Option<&toml::Value>) -> impl Iterator<Item = &toml::Table> {
    value.and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_table)
}

fn unknown(path: &str, text: &str, key: &str, field: &str, found: &mut Found) {
    let what = "the daemon knows no such key and refuses the file";
    found.tell(Weight::Illegal, path, line_of(text, &[key]), field, what);
}

/// A table of the file.
#[derive(Clone)]
struct Place<'a> {
    path: &'a str,
    text: &'a str,
    field: String,
}

impl Place<'_> {
    fn line(&self, key: &str) -> Option<usize> {
        // Behind the head of its own table.
        let head = [format!("[{}]", self.field), format!("[[{}]]", self.field)];
        let lines: Vec<&str> = self.text.lines().map(str::trim_start).collect();
        let start = lines.iter().position(|l| head.iter().any(|h| l.starts_with(h.as_str())))?;
        let is_key =
            |l: &&str| l.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
        Some(start + lines[start..].iter().position(is_key).unwrap_or(0) + 1)
    }

    fn names(&self, name: &str, found: &mut Found) {
        if !is_name(name) {
            let what = "names have lower-case letters, digits and underscores, 64 at most";
            found.tell(Weight::Illegal, self.path, self.line(""), &self.field, what);
        }
    }

    fn keys(&self, table: &toml::Table, known: &[&str], found: &mut Found) {
        for key in table.keys().filter(|k| !known.contains(&k.as_str())) {
            unknown(self.path, self.text, key, &format!("{}.{key}", self.field), found);
        }
    }

    /// Limits of a namespace; of the daemon's default one where no tenant is named (`""`).
    fn limits(
        &self,
        table: &toml::Table,
        (tenant, gpu): (&str, Option<u32>),
        found: &mut Found,
    ) -> Result<(), ReadError> {
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(i) => i.to_string(),
                _ => continue,
            };
            limit(self.path, self.line(key), (key, &value), (tenant, gpu), found)?;
        }
        Ok(())
    }

    fn partition(
        &self,
        partition: &toml::Table,
        gpu: Option<u32>,
        domains: bool,
        found: &mut Found,
    ) -> Result<(), ReadError> {
        let name = partition.get("name").and_then(toml::Value::as_str);
        let chunks = partition.get("chunks").and_then(toml::Value::as_integer);
        let (Some(name), Some(chunks)) = (name, chunks) else {
            let what = "needs `name` and `chunks`";
            return Err(ReadError::new(self.path, self.line("chunks"), &self.field, what));
        };
        // The line of this one among several.
        let quoted = format!("name = \"{name}\"");
        let at = self.text.lines().position(|l| l.trim() == quoted).map(|i| i + 1);
        let line = at.or(self.line("name"));
        self.names(name, found);
        let chunks = u32::try_from(chunks).ok().filter(|n| *n > 0).ok_or_else(|| {
            ReadError::new(
                self.path,
                line,
                &self.field,
                format!("`{chunks}` is not a number of chunks"),
            )
        })?;
        if domains {
            let what = "`locality_domains` and static partitions exclude each other";
            found.tell(Weight::Illegal, self.path, line, &self.field, what);
        }
        if partition.get("include_remainder").and_then(toml::Value::as_bool) == Some(true) {
            remainder(self.path, line, found);
        }
        if partition.get("shareable").and_then(toml::Value::as_bool) == Some(true) {
            let what = "is simulated as one that nobody shares";
            found.tell(Weight::Note, self.path, line, &format!("{}.shareable", self.field), what);
        }
        mps_limits::partition(self.path, line, (chunks, 3), Some(name), gpu, found);
        Ok(())
    }
}

fn remainder(path: &str, line: Option<usize>, found: &mut Found) {
    let what = "gives it the SMs that fill no chunk, too; simulated without them";
    found.tell(Weight::Note, path, line, "include-remainder", what);
}

/// A limit by its key in the file, or its flag with underscores.
fn limit(
    path: &str,
    line: Option<usize>,
    (key, value): (&str, &str),
    (tenant, gpu): (&str, Option<u32>),
    found: &mut Found,
) -> Result<(), ReadError> {
    match key {
        "active_thread_percentage" => {
            let percent = percentage(path, line, key, value)?;
            found.percent_told(percent, path, line, key);
            if tenant.is_empty() {
                // Nobody but clients without a namespace has it.
                return Ok(());
            }
            let mut others = vec![];
            for ((name, g, _), t) in &mut found.tenants {
                if slug(name) == slug(tenant) && (*g == gpu || g.is_none()) {
                    others.extend(t.percent.replace(percent).filter(|p| *p != percent));
                }
            }
            found.tenant(tenant, gpu).percent = Some(percent);
            found.namespaces.insert((slug(tenant), gpu), percent);
            for other in others {
                found.tell(Weight::Ignored, path, line, key, overruled(percent, other));
            }
        }
        "pinned_memory_limit" => {
            let limit = memory(value).map_err(|what| ReadError::new(path, line, key, what))?;
            if !tenant.is_empty() {
                found.tenant(tenant, gpu).memory_limit = Some(limit);
            }
        }
        "client_priority" if !matches!(value, "0" | "1") => {
            let what = format!("`{value}` is neither 0 (normal) nor 1 (below normal)");
            return Err(ReadError::new(path, line, key, what));
        }
        _ => {}
    }
    Ok(())
}

/// A command line of `nvidia-cuda-mps-control MODULE VERB …`, in words.
pub(crate) fn command(
    path: &str,
    line: Option<usize>,
    words: &[&str],
    gpu: Option<u32>,
    found: &mut Found,
) -> Result<(), ReadError> {
    let Some(at) = words.windows(2).position(|w| {
        matches!(w, ["sm-partition", "create"] | ["namespace", "set"] | ["server", "set"])
    }) else {
        return Ok(());
    };
    let (module, rest) = (words[at], &words[at + 2..]);
    let name = rest.iter().find(|w| !w.contains('=') && !w.starts_with('-')).copied();
    let flags: Vec<(String, &str)> = rest
        .iter()
        .filter_map(|w| w.trim_start_matches("--").split_once('='))
        .map(|(key, value)| (key.replace('-', "_"), value))
        .collect();
    let flag = |key: &str| flags.iter().find(|(k, _)| k == key).map(|(_, value)| *value);
    let field = format!("{module} {}", words[at + 1]);
    let Some(name) = name else {
        return Err(ReadError::new(path, line, field, "needs a name"));
    };
    if !is_name(name) {
        let what = format!("`{name}`: names have lower-case letters, digits and underscores");
        found.tell(Weight::Illegal, path, line, &field, what);
    }
    let server = flag("server").and_then(|s| s.strip_prefix("gpu")).and_then(|n| n.parse().ok());
    let gpu = gpu.or(server);
    if module != "sm-partition" {
        let who = if module == "server" || name == "default" { ("", None) } else { (name, gpu) };
        for (key, value) in &flags {
            limit(path, line, (key, value), who, found)?;
        }
        return Ok(());
    }
    let chunks = flag("chunks").unwrap_or_default();
    let chunks = chunks.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
        let what = format!("`{chunks}` is not a number of chunks; write --chunks=4");
        ReadError::new(path, line, &field, what)
    })?;
    if flag("include_remainder") == Some("true") {
        remainder(path, line, found);
    }
    mps_limits::partition(path, line, (chunks, 3), Some(name), gpu, found);
    Ok(())
}
