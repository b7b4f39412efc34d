//! One form for names that Unicode can write in several: letters composed (NFC), as keyboards type them.

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::{Dataset, DatasetWarning};

/// Composes the classes and super classes of a data set, and says which classes were written in more than one form. Paths
/// stay as the file system has them.
pub(super) fn compose(set: &mut Dataset) {
    let mut forms = BTreeMap::<String, BTreeSet<String>>::new();
    for sample in &mut set.samples {
        if let Some(class) = sample.class.take() {
            let composed = composed(&class);
            // Names in ASCII have one form.
            if !class.is_ascii() && forms.get(&composed).is_none_or(|known| !known.contains(&class)) {
                forms.entry(composed.clone()).or_default().insert(class);
            }
            sample.class = Some(composed);
        }
        sample.super_class = sample.super_class.take().map(|name| composed(&name));
    }
    let several = forms.into_iter().filter(|(_, forms)| forms.len() > 1);
    set.warnings.extend(
        several
            .map(|(class, forms)| DatasetWarning::UnicodeForms { class, forms: forms.into_iter().collect() }),
    );
}

fn composed(name: &str) -> String {
    if is_nfc(name) { name.to_owned() } else { name.nfc().collect() }
}

#[cfg(test)]
mod tests {
    use crate::dataset::{Dataset, DatasetConfig};

    #[test]
    fn one_class_in_two_forms_is_one_class_and_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["Äpfel/1.jpg", "A\u{308}pfel/1.jpg", "Bu\u{308}cher/1.jpg"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let set = Dataset::open(&DatasetConfig::new(dir.path())).unwrap();
        assert_eq!((set.len(), set.classes()), (3, vec!["Bücher", "Äpfel"]));
        assert!(set.samples.iter().all(|sample| set.full_path(sample).is_file()));
        assert_eq!(set.warnings.len(), 1);
        let warning = set.warnings[0].to_string();
        assert!(warning.contains(r"A\u{308}pfel") && warning.contains("one class"), "{warning}");
    }
}
