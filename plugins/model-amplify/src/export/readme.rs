//! The text of an export's `README.md`.

const FILES: &str = "\
# An AMPLIFY model, fine-tuned with fedplug

| file | |
|---|---|
| `model.safetensors` | the trunk with its published names, in fp32 |
| `config.json` | its sizes and switches |
| `tokenizer.json`, `tokenizer_config.json` | the tokenizer; chains are joined with a vertical bar |
";

const HEAD_FILES: &str = "\
| `regressors.safetensors` | the regression heads, `regressors.T.K.weight` and `regressors.T.K.bias` |
| `fedplug.json` | each head's task and columns, and how the trunk's output is pooled |
";

const HEADS: &str = "
In the `[model]` table of another experiment, set `pretrained` to this folder and `regressors` to its `regressors.safetensors`.
A head's input is the mean of the last block's output over positions, before `layer_norm_2`, with each position divided by its
L2 norm.
";

const NO_HEADS: &str = "
The folder has no regression heads, since this model has none that were trained. In the `[model]` table of another experiment,
set `pretrained` to this folder.
";

const CODE: &str = "
The modelling code of the pretrained trunk is included. Hugging Face's `transformers` loads the folder if the packages that the
code imports are installed:

```python
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")
model = AutoModel.from_pretrained(\"FOLDER\", trust_remote_code=True)  # runs the `.py` files of the folder
```
";

const NO_CODE: &str = "
Hugging Face's `transformers` loads the tokenizer with `AutoTokenizer.from_pretrained(\"FOLDER\")`. `AutoModel` also needs the
modelling code, which is not included: copy the `.py` files of a published checkpoint, such as `chandar-lab/AMPLIFY_120M`, and
the entry `auto_map` of its `config.json` into this folder, and pass `trust_remote_code=True`. Without them,
`safetensors.torch.load_file` reads the weights by name.
";

const ADAPTER: &str = "
The trunk was trained with LoRA, and its weights here have the additions. The folder `adapter` has these alone, in PEFT's layout:
`peft.PeftModel.from_pretrained(trunk, \"FOLDER/adapter\")` adds them to the trunk that the training started from.
";

/// Its text for a folder with or without heads, adapters and modelling code.
pub(super) fn text(heads: bool, adapter: bool, code: bool) -> String {
    let (files, about) = if heads { (HEAD_FILES, HEADS) } else { ("", NO_HEADS) };
    [FILES, files, about, if adapter { ADAPTER } else { "" }, if code { CODE } else { NO_CODE }].concat()
}
