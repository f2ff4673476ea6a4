"""The site: `make docs` builds it, without warnings, from docs/, the notebooks, the experiments and the docstrings."""

import os
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
# Tutorials are short runs of large programs: they are compiled with little optimisation, as in the tests, and kept.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(DOCS.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.pop("MPLBACKEND", None)  # or kernels would not show what they draw
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
os.environ["JUPYTER_PATH"] = str(DOCS / "jupyter")  # a kernel that says nothing but errors

import docstrings  # noqa: E402
import pages  # noqa: E402

project, author = "entroflow", "the authors of entroflow"
version = release = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.githubpages", "sphinx_copybutton"]
html_theme, html_title = "furo", f"entroflow {version}"
html_theme_options = {"footer_icons": []}
html_static_path, html_css_files = ["site.css"], ["site.css"]  # long names in tables break
exclude_patterns = ["tables"]
nitpicky = True
default_role = "py:obj"  # of docstrings; what is no name there is shown as code, see docstrings.py
suppress_warnings = ["ref.python"]  # of such names, several are called sample

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline", "substitution"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_in_temp = True
nb_merge_streams = True
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

pages.write()


def setup(app):
    """Connect what makes docstrings and links fit for the site."""
    docstrings.connect(app)
    app.connect("source-read", pages.relink)
