"""Compare what the original and the fine-tuned model see in a picture, in a browser.

    python app.py [--model M] [--baseline M0] [--examples DIR] [--port P]
    python app.py flags.yaml

Without flags: the embedded model, and what `make demo` has made of it in outputs/demo/model.
"""

from hf_robustvit.commands.start import start


if __name__ == "__main__":
    start("app")
