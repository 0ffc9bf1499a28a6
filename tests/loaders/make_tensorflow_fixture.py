"""Write `tensorflow_gpt2/`: small checkpoints by TensorFlow itself, the oracle of our own reader. Run once, by hand.

TensorFlow is no dependency of the course. In an environment of its own:

    python3 -m venv /tmp/tf
    /tmp/tf/bin/pip install tensorflow-cpu
    /tmp/tf/bin/python tests/loaders/make_tensorflow_fixture.py

It writes, with values from a fixed seed:

    gpt2/         a GPT-2 as OpenAI published theirs: the same variable names, by the same class (Saver), with
                  hparams.json, encoder.json, vocab.bpe, and `checkpoint`, which says which checkpoint is the latest
    sharded/      the same variables in two data files
    training/     the same variables among what a training run saves with them: Adam's moments, a step counter
    types/        a tensor of every type, of several shapes
    objects/      what tf.train.Checkpoint writes, the format's use since TensorFlow 2: it has a tensor of text in it
    partitioned/  a variable that was saved in slices
    expected.npz  the values, as TensorFlow's own reader gives them back
"""

import json
import os
import shutil
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
TARGET = Path(__file__).parent / "tensorflow_gpt2"
HPARAMS = {"n_vocab": 263, "n_ctx": 64, "n_embd": 12, "n_head": 3, "n_layer": 2}
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "e r", "Ġ a"]


def gpt2_shapes():
    """Every variable of OpenAI's model.py. The matrices are kernels of convolutions of width 1: hence the first 1."""
    width = HPARAMS["n_embd"]
    shapes = {"model/wpe": (HPARAMS["n_ctx"], width), "model/wte": (HPARAMS["n_vocab"], width)}
    for layer in range(HPARAMS["n_layer"]):
        for name, inner, outer in (
            ("attn/c_attn", width, 3 * width),
            ("attn/c_proj", width, width),
            ("mlp/c_fc", width, 4 * width),
            ("mlp/c_proj", 4 * width, width),
        ):
            shapes |= {f"model/h{layer}/{name}/w": (1, inner, outer), f"model/h{layer}/{name}/b": (outer,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"model/h{layer}/{norm}/g": (width,), f"model/h{layer}/{norm}/b": (width,)}
    return shapes | {"model/ln_f/g": (width,), "model/ln_f/b": (width,)}


def variables(shapes, devices=1):
    """The variables of a graph, shared out among devices: a sharded Saver writes a file for each."""
    generator = np.random.default_rng(0)
    for index, (name, shape) in enumerate(shapes.items()):
        values = generator.normal(0.0, 0.3, shape).astype(np.float32)
        with tf.device(f"/cpu:{index % devices}"):
            v1.get_variable(name, initializer=values, use_resource=False)


def save(folder, build, devices=1, **options):
    """Save the variables that `build` makes, the way OpenAI's program did."""
    (TARGET / folder).mkdir()
    with tf.Graph().as_default():
        build()
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": devices})) as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver(**options).save(session, str(TARGET / folder / "model.ckpt"), write_meta_graph=False)
    # The absolute path of this machine, which Saver writes there, is of no use elsewhere.
    lines = ('model_checkpoint_path: "model.ckpt"', 'all_model_checkpoint_paths: "model.ckpt"', "")
    (TARGET / folder / "checkpoint").write_text("\n".join(lines))


def in_training():
    variables(gpt2_shapes())
    v1.train.create_global_step()
    loss = tf.add_n([v1.reduce_sum(variable) for variable in v1.trainable_variables()])
    v1.train.AdamOptimizer().minimize(loss, global_step=v1.train.get_global_step())


def of_every_type():
    generator = np.random.default_rng(1)
    kinds = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    for dtype in ("float16", "bfloat16", "float32", "float64", *kinds, "bool"):
        values = generator.integers(0, 2 if dtype == "bool" else 100, (3, 5))
        v1.get_variable(dtype, initializer=tf.cast(values, dtype), use_resource=True)
    v1.get_variable("scalar", initializer=np.float32(1.5), use_resource=True)
    v1.get_variable("empty", initializer=np.zeros((0, 4), np.float32), use_resource=True)


def tokenizer_files(folder):
    """encoder.json and vocab.bpe: 256 bytes in GPT-2's characters, a token for every merge, the end of a text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    tokens = [*map(chr, printable), *(chr(256 + index) for index in range(len(others)))]
    tokens += [merge.replace(" ", "") for merge in MERGES] + ["<|endoftext|>"]
    assert len(tokens) == HPARAMS["n_vocab"]
    (folder / "encoder.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    (folder / "hparams.json").write_text(json.dumps(HPARAMS, indent=2))


def main():
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    save("gpt2", lambda: variables(gpt2_shapes()))
    tokenizer_files(TARGET / "gpt2")
    save("sharded", lambda: variables(gpt2_shapes(), devices=2), devices=2, sharded=True)
    save("training", in_training)
    save("types", of_every_type)
    rows = {"partitioner": v1.fixed_size_partitioner(2), "initializer": v1.zeros_initializer()}
    save("partitioned", lambda: v1.get_variable("matrix", shape=(4, 3), use_resource=False, **rows))
    tf.train.Checkpoint(weight=tf.Variable([1.0, 2.0])).write(str(TARGET / "objects" / "model.ckpt"))

    expected = {}
    for folder in ("gpt2", "sharded", "training", "types"):
        reader = tf.train.load_checkpoint(str(TARGET / folder / "model.ckpt"))
        for name in reader.get_variable_to_shape_map():
            values = reader.get_tensor(name)
            # numpy has no bfloat16 of its own; a float32 holds each of its values.
            values = values.astype(np.float32) if values.dtype == tf.bfloat16 else values
            assert np.array_equal(expected.setdefault(name, values), values)
    np.savez_compressed(TARGET / "expected.npz", **expected)


if __name__ == "__main__":
    main()
