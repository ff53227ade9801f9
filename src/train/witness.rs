//! What a run keeps for its page besides numbers: which samples came first, and what a classifier answered in the last
//! validation.

use std::path::Path;

use super::engine::Sources;
use crate::error::Result;
use crate::executor::Done;
use crate::graph::plan::{Pass, Program};
use crate::pipeline::{Split, Work};
use crate::quarantine::Quarantine;
use crate::report::answers::{ANSWERS, Answers, CLASSES_MAX, Counting};
use crate::report::folder::write_json;
use crate::report::gallery;
use crate::source::{ENDLESS, Viewer};

/// Bytes of logits of a batch beyond which they stay on the device: reading them back would show in the run's time.
const LOGITS_BYTES_MAX: usize = 4 << 20;

/// Watches a run that has a folder.
pub(super) struct Witness {
    /// Number of classes, where answers are counted.
    classes: Option<usize>,
    counting: Counting,
    answers: Option<Answers>,
    /// Epoch and samples of the first batch trained on.
    first: Option<(u64, Vec<usize>)>,
    /// What shows samples as they reach the device.
    pub train: Viewer,
    pub held_out: Viewer,
    /// Whether the program adds transforms of its own, which nobody else can apply.
    pub lacks_transforms: bool,
}

impl Witness {
    pub fn new(program: &Program, train: Viewer, held_out: Viewer) -> Self {
        let classes = program.spec.classes().filter(|&classes| {
            let logits_bytes = 4 * program.output_width() * program.slot.batch_size;
            classes == program.output_width()
                && classes <= CLASSES_MAX
                && logits_bytes <= LOGITS_BYTES_MAX
        });
        Self {
            classes,
            counting: Counting::default(),
            answers: None,
            first: None,
            train,
            held_out,
            lacks_transforms: false,
        }
    }

    /// Looks at a pass that is about to be submitted; whether its output is wanted.
    pub fn submitting(&mut self, work: &Work) -> bool {
        if work.split == Split::Train && self.first.is_none() {
            let samples = work.indices.iter().take(gallery::SAMPLES_MAX);
            self.first = Some((work.epoch, samples.copied().collect()));
        }
        work.pass == Pass::Eval && self.classes.is_some()
    }

    /// Looks at a pass that has come back.
    pub fn finished(&mut self, work: &Work, done: &Done, sources: &Sources) {
        let (Some(classes), Some(logits), Some(held_out)) =
            (self.classes, &done.output, &sources.validation)
        else {
            return;
        };
        self.counting.add(logits, classes, &work.indices, |index| held_out.class(index));
        if work.last {
            let counting = std::mem::take(&mut self.counting);
            self.answers = counting.finish(work.epoch, work.step, classes);
        }
    }

    /// Writes all of it into the run folder at the end of a run. Samples that were bad are not tried again.
    pub fn testify(&mut self, dir: &Path, sources: &Sources, bad: &Quarantine) -> Result<()> {
        if let (Some(answers), Some(held_out)) = (&mut self.answers, &sources.validation) {
            for mistake in &mut answers.worst {
                mistake.origin = held_out.origin(mistake.index);
            }
            gallery::remove_sheet(dir, gallery::MISTAKES_SHEET)?;
            write_json(&dir.join(ANSWERS), answers)?;
            let indices: Vec<usize> = answers.worst.iter().map(|m| m.index).collect();
            gallery::keep_mistakes(dir, &**held_out, &mut self.held_out, &indices)?;
        }
        // The samples of a stream are gone.
        if let Some((epoch, indices)) = &self.first
            && sources.train.len() != ENDLESS
        {
            let bad = bad.part(Split::Train);
            let indices: Vec<usize> =
                indices.iter().copied().filter(|&index| !bad.has_met(index)).collect();
            let batch = (*epoch, &indices[..]);
            let (train, lacks) = (&*sources.train, self.lacks_transforms);
            gallery::keep_samples(dir, train, &mut self.train, batch, lacks)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::report::answers::Mistake;
    use crate::report::gallery::{MISTAKES_SHEET, SAMPLES, SAMPLES_SHEET};
    use crate::source::Synthetic;

    /// What a part of a run testifies that trained on these samples first and was mistaken over them at its end.
    fn testify(dir: &Path, indices: &[usize]) {
        let target = TargetSpec::Class { classes: 2 };
        let spec = SampleSpec { input_shape: vec![1, 6, 6], input_dtype: DType::U8, target };
        let source = Arc::new(Synthetic::new(8, spec, 0).expect("a source"));
        let mistake = |&index: &usize| Mistake {
            index,
            origin: None,
            label: 0,
            answer: 1,
            probability: 0.9,
            loss: 2.0,
        };
        let worst = indices.iter().map(mistake).collect();
        let mut witness = Witness {
            classes: Some(2),
            counting: Counting::default(),
            answers: Some(Answers { classes: 2, worst, ..Default::default() }),
            first: Some((0, indices.to_vec())),
            train: Viewer::default(),
            held_out: Viewer::default(),
            lacks_transforms: false,
        };
        let validation: Arc<dyn crate::source::Source> = source.clone();
        let sources = Sources { train: source, validation: Some(validation), waiting: Vec::new() };
        witness.testify(dir, &sources, &Quarantine::errors()).expect("writes");
    }

    #[test]
    fn no_pictures_of_other_samples_stay() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let sheets = || [SAMPLES_SHEET, MISTAKES_SHEET].map(|name| dir.path().join(name).exists());
        testify(dir.path(), &[1, 2]);
        assert_eq!(sheets(), [true, true]);
        // A later part of the run, which cannot read them: there are 8.
        testify(dir.path(), &[8, 9]);
        assert_eq!(sheets(), [false, false]);
        let json = std::fs::read_to_string(dir.path().join(ANSWERS)).expect("is there");
        assert!(json.contains("\"index\": 9"), "{json}");
        assert!(dir.path().join(SAMPLES).exists());
    }
}
