//! `README.md` of an export.

const FILES: &str = "\
# An AMPLIFY model, fine-tuned with fedplug

| file | |
|---|---|
| `model.safetensors` | the trunk under the published names, in fp32 |
| `config.json` | its sizes and switches |
| `tokenizer.json`, `tokenizer_config.json` | from letters to token ids; chains are joined by a vertical bar |
";

const HEAD_FILES: &str = "\
| `regressors.safetensors` | the regression heads, `regressors.T.K.weight` and `regressors.T.K.bias` |
| `fedplug.json` | the task that each head `T` predicts, its columns, and how the trunk's output is pooled |
";

const HEADS: &str = "
In another experiment's `[model]` table, `pretrained` takes this folder and `regressors` takes `regressors.safetensors`. A head
reads the mean over the last block's output, before `layer_norm_2`, with each position divided by its length.
";

const NO_HEADS: &str = "
There are no regression heads, since this model holds none that were trained. In another experiment's `[model]` table,
`pretrained` takes this folder.
";

const CODE: &str = "
The modelling code came with the pretrained trunk and is here too. Hugging Face's `transformers` loads the folder where the
packages that the code imports are installed:

```python
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\")
model = AutoModel.from_pretrained(\"FOLDER\", trust_remote_code=True)  # runs the `.py` files of the folder
```
";

const NO_CODE: &str = "
`AutoTokenizer.from_pretrained(\"FOLDER\")` of Hugging Face's `transformers` loads the tokenizer. `AutoModel` needs the modelling
code as well, which this trunk does not have: copy the `.py` files of a published checkpoint, such as
`chandar-lab/AMPLIFY_120M`, and the entry `auto_map` of its `config.json` into this folder, and pass `trust_remote_code=True`.
Without them, `safetensors.torch.load_file` reads the weights by name.
";

/// What it says of a folder with or without heads and modelling code.
pub(super) fn text(heads: bool, code: bool) -> String {
    let (files, about) = if heads { (HEAD_FILES, HEADS) } else { ("", NO_HEADS) };
    [FILES, files, about, if code { CODE } else { NO_CODE }].concat()
}
