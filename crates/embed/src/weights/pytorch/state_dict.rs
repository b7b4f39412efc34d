//! Where in a checkpoint the tensors by name are.

use std::collections::BTreeMap;

use super::super::pickle::{Pickle, Ref, Value};
use super::tensor_ref::{self, Found, TensorRef};

/// What programs call the network in a checkpoint that holds more, such as an optimiser; the first that holds tensors is
/// taken.
const NETWORK: [&str; 3] = ["state_dict", "model", "model_state_dict"];
/// Entries looked at before a checkpoint is given up: dictionaries may share their entries without end.
const MAX_VISITS: usize = 1 << 20;
/// Longest name of a tensor, in bytes.
const MAX_NAME: usize = 1024;
/// Modules within modules that are followed.
const MAX_DEPTH: usize = 64;

/// A network's tensors by name.
#[derive(Debug, Default)]
pub(super) struct StateDict {
    pub(super) tensors: BTreeMap<String, TensorRef>,
    /// Tensors of kinds that are not read, and which.
    pub(super) unreadable: BTreeMap<String, String>,
    /// What the checkpoint calls the architecture.
    pub(super) arch: Option<String>,
}

impl StateDict {
    /// Finds the network in what a file holds: a dictionary of tensors, one below another key, or a whole module.
    ///
    /// # Errors
    /// Words for a file that holds none, or several of which none has a name that says it is the network.
    pub(super) fn find(pickle: &Pickle) -> Result<Self, String> {
        let mut search = Search { pickle, visits: 0 };
        let mut at = pickle.root;
        let arch = pickle.entry(at, "arch").and_then(|arch| pickle.text(arch)).map(str::to_owned);
        // Dictionaries in dictionaries, as `{"state": {"model": {…}}}`.
        for _ in 0..4 {
            let here = search.network(at)?;
            for key in NETWORK {
                let Some(below) = pickle.entry(at, key) else { continue };
                let network = search.network(below)?;
                if network.len() > here.len() {
                    return Self { arch, ..network }.readable();
                }
            }
            if here.len() > 0 {
                return Self { arch, ..here }.readable();
            }
            at = match search.below(at)? {
                Some(below) => below,
                None => break,
            };
        }
        Err("it holds no tensors by name, nor below state_dict, model or model_state_dict; save the network's \
             state_dict() with torch.save"
            .to_owned())
    }

    fn len(&self) -> usize {
        self.tensors.len() + self.unreadable.len()
    }

    /// Refuses a network of which nothing can be read.
    fn readable(self) -> Result<Self, String> {
        match self.unreadable.first_key_value() {
            Some((name, reason)) if self.tensors.is_empty() => Err(format!(
                "none of its {} tensors can be read ({name}: {reason}); save them as plain tensors of floats with \
                 torch.save",
                self.unreadable.len()
            )),
            _ => Ok(self),
        }
    }
}

/// Looks for networks, and gives up where a file would keep it looking.
struct Search<'a> {
    pickle: &'a Pickle,
    visits: usize,
}

impl Search<'_> {
    fn visit(&mut self) -> Result<(), String> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(format!("it has more than {MAX_VISITS} entries to look at"));
        }
        Ok(())
    }

    /// The only entry of a dictionary that holds a network; if none does, the only one that is a dictionary.
    fn below(&mut self, at: Ref) -> Result<Option<Ref>, String> {
        let (pickle, mut networks, mut dicts) = (self.pickle, Vec::new(), Vec::new());
        for (key, value) in pickle.dict(at).into_iter().flatten() {
            let Some(name) = pickle.text(*key) else { continue };
            if self.network(*value)?.len() > 0 {
                networks.push((name, *value));
            }
            if pickle.dict(*value).is_some_and(|entries| !entries.is_empty()) {
                dicts.push(*value);
            }
        }
        match (&networks[..], &dicts[..]) {
            ([(_, only)], _) | ([], [only]) => Ok(Some(*only)),
            ([], _) => Ok(None),
            ([(first, _), ..], _) => {
                let names: Vec<&str> = networks.iter().map(|(name, _)| *name).take(8).collect();
                Err(format!(
                    "it holds several networks ({}); save one of them by itself, as \
                     torch.save(torch.load(FILE)[\"{first}\"], NEW_FILE)",
                    names.join(", ")
                ))
            }
        }
    }

    /// The tensors of a dictionary, or of a module and those within it.
    fn network(&mut self, at: Ref) -> Result<StateDict, String> {
        let mut found = StateDict::default();
        match self.pickle.get(at) {
            Value::Dict(_) => self.dict(&mut found, at, "")?,
            Value::Call(_) => self.module(&mut found, at, "", 0)?,
            _ => {}
        }
        Ok(found)
    }

    /// Adds the tensors of a dictionary, not those of dictionaries in it.
    fn dict(&mut self, found: &mut StateDict, dict: Ref, prefix: &str) -> Result<(), String> {
        for (key, value) in self.pickle.dict(dict).into_iter().flatten() {
            self.visit()?;
            let Some(name) = self.pickle.text(*key) else { continue };
            let Some(tensor) = tensor_ref::find(self.pickle, *value) else { continue };
            let name = joined(prefix, name)?;
            match tensor {
                Found::Tensor(tensor) => drop(found.tensors.insert(name, tensor)),
                Found::Unreadable(reason) => drop(found.unreadable.insert(name, reason)),
            }
        }
        Ok(())
    }

    /// Adds the tensors of a module that was saved whole: those of `torch.save(module)` lie in dictionaries of their own,
    /// those of `torch.jit.save` are attributes.
    fn module(&mut self, found: &mut StateDict, at: Ref, prefix: &str, depth: usize) -> Result<(), String> {
        self.visit()?;
        if depth > MAX_DEPTH {
            return Err(format!("its modules are nested more than {MAX_DEPTH} deep"));
        }
        let pickle = self.pickle;
        let Some((call, (module, _))) = pickle.call(at) else { return Ok(()) };
        let Some(state) = call.state else { return Ok(()) };
        for key in ["_parameters", "_buffers"] {
            if let Some(own) = pickle.entry(state, key) {
                self.dict(found, own, prefix)?;
            }
        }
        let mut within = pickle.entry(state, "_modules");
        if module.starts_with("__torch__") {
            self.dict(found, state, prefix)?;
            within = Some(state);
        }
        for (key, value) in within.and_then(|within| pickle.dict(within)).into_iter().flatten() {
            self.visit()?;
            if let Some(name) = pickle.text(*key)
                && pickle.call(*value).is_some()
            {
                self.module(found, *value, &format!("{}.", joined(prefix, name)?), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn joined(prefix: &str, name: &str) -> Result<String, String> {
    if prefix.len() + name.len() > MAX_NAME {
        return Err(format!("it names a tensor with more than {MAX_NAME} bytes"));
    }
    Ok(format!("{prefix}{name}"))
}
