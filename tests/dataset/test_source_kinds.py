"""Every kind of source gives the same data set: ids, labels and splits."""

import doctest
import io
import json
import struct
import subprocess
import sys
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from secateur.dataset import open_table, rows
from secateur.dataset.images import decode
from secateur.dataset.sources import IngestConfig, hub, ingest, source
from secateur.dataset.sources import location as places
from secateur.dataset.sources.location import parse
from secateur.dataset.sources.source import split_in
from secateur.dataset.sources.state import states
from secateur.errors import InputError

CLASSES = ("cat", "dog")


def png(seed):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(out, format="PNG")
    return out.getvalue()


PICTURES = [(png(i), CLASSES[i % 2], ("train", "validation", "test")[i % 3]) for i in range(24)]


def read(source, tmp_path, **settings):
    info = ingest(IngestConfig(source=str(source), **settings), tmp_path / "table", tmp_path / "clean.parquet")
    return info, open_table(tmp_path / "table")


def content(table):
    labels = [table.info.classes[i] for i in table.label]
    return [(table.image(i), label, split) for i, (label, split) in enumerate(zip(labels, table.split, strict=True))]


def files(folder, pictures=PICTURES):
    for i, (image, *_) in enumerate(pictures):
        path = folder / "files" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def manifest(rows, columns=("path", "label", "split")):
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows), ""])


def whole_manifest(base="files/"):
    return manifest([(f"{base}{i}.png", label, split) for i, (_, label, split) in enumerate(PICTURES)])


def huggingface(names):
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def hf_table(pictures, names=CLASSES):
    rows = {
        "image": pa.array([{"bytes": image, "path": f"{i}.png"} for i, (image, *_) in enumerate(pictures)]),
        "label": pa.array([names.index(label) for _, label, _ in pictures], pa.int64()),
    }
    return pa.table(rows).replace_schema_metadata(huggingface(names))


def write_shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as shard:
        for name, body in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            shard.addfile(entry, io.BytesIO(body))


def of_split(split):
    return [picture for picture in PICTURES if picture[2] == split]


class TestManifests:
    @pytest.mark.parametrize("mark", ["", "﻿"])
    def test_csv_with_relative_paths(self, tmp_path, mark):
        files(tmp_path / "pets")
        (tmp_path / "pets" / "all.csv").write_text(mark + whole_manifest())
        info, table = read(tmp_path / "pets" / "all.csv", tmp_path)
        assert content(table) == PICTURES
        assert (info.name, info.classes) == ("all", CLASSES)
        assert table.source(3) == "files/3.png"

    def test_columns_go_by_other_names(self, tmp_path):
        files(tmp_path / "pets")
        rows = [(label, f"files/{i}.png") for i, (_, label, _) in enumerate(PICTURES)]
        text = manifest(rows, ("Class", "file_name")).replace(",", "\t")
        (tmp_path / "pets" / "all.tsv").write_text(text)
        _, table = read(tmp_path / "pets" / "all.tsv", tmp_path)
        assert [c[:2] for c in content(table)] == [p[:2] for p in PICTURES]

    def test_urls_and_absolute_paths(self, tmp_path):
        files(tmp_path)
        memory = fsspec.filesystem("memory")
        for i, (image, *_) in enumerate(PICTURES):
            memory.pipe_file(f"/pets/{i}.png", image)
        bases = ["memory://pets/", f"file://{tmp_path}/files/", f"{tmp_path}/files/", "files/"]
        rows = [(f"{bases[i % 4]}{i}.png", label, split) for i, (_, label, split) in enumerate(PICTURES)]
        (tmp_path / "all.csv").write_text(manifest(rows))
        _, table = read(tmp_path / "all.csv", tmp_path)
        assert content(table) == PICTURES
        assert table.source(0) == "memory://pets/0.png"

    def test_a_manifest_at_a_url(self, tmp_path):
        memory = fsspec.filesystem("memory")
        for i, (image, *_) in enumerate(PICTURES):
            memory.pipe_file(f"/far/files/{i}.png", image)
        memory.pipe_file("/far/all.csv", whole_manifest().encode())
        assert content(read("memory://far/all.csv", tmp_path)[1]) == PICTURES

    def test_secrets_in_urls_stay_out_of_the_table(self, tmp_path):
        fsspec.filesystem("memory").pipe_file("/ada:secret@pets/0.png?signature=secret", PICTURES[0][0])
        (tmp_path / "all.csv").write_text("url,label\nmemory://ada:secret@pets/0.png?signature=secret,cat\n")
        assert read(tmp_path / "all.csv", tmp_path)[1].source(0) == "memory://pets/0.png"

    def test_parquet_with_paths(self, tmp_path):
        files(tmp_path)
        columns = {
            "path": [f"files/{i}.png" for i in range(24)],
            "label": pa.array([label for _, label, _ in PICTURES]).dictionary_encode(),
            "split": [split for *_, split in PICTURES],
        }
        pq.write_table(pa.table(columns), tmp_path / "all.parquet")
        assert content(read(tmp_path / "all.parquet", tmp_path)[1]) == PICTURES

    def test_names_that_need_quotes_or_are_not_utf8(self, tmp_path):
        names = ['a "b", c.png', "two\nlines.png", b"caf\xe9.png".decode("utf-8", "surrogateescape")]
        for name, (image, *_) in zip(names, PICTURES, strict=False):
            (tmp_path / name).write_bytes(image)
        text = "path,label\n" + "".join('"{}",cat\n'.format(name.replace('"', '""')) for name in names)
        (tmp_path / "all.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
        _, table = read(tmp_path / "all.csv", tmp_path)
        assert [table.source(i) for i in range(3)] == [names[0], names[1], "caf\\xe9.png"]

    def test_missing_files_are_set_aside(self, tmp_path):
        files(tmp_path)
        text = whole_manifest() + "files/gone.png,cat,train\nmemory://nowhere/gone.png,cat,train\n,cat,train\n"
        (tmp_path / "all.csv").write_text(text)
        info, table = read(tmp_path / "all.csv", tmp_path, max_unreadable=0.2)
        assert content(table) == PICTURES
        assert info.unreadable == ("files/gone.png", "memory://nowhere/gone.png", "all.csv#27")

    def test_numbers_for_labels_are_sorted_as_numbers(self, tmp_path, caplog):
        files(tmp_path)
        (tmp_path / "all.csv").write_text(manifest([(f"files/{i}.png", i) for i in range(12)], ("path", "label")))
        assert read(tmp_path / "all.csv", tmp_path)[0].classes == tuple(map(str, range(12)))
        assert "the classes have numbers for names, which say nothing to CLIP" in caplog.text

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", r"must have a column with pictures \(image, .*\), got none in"),
            ("path,colour\n", r"must have a column with labels \(label, .*\), got path, colour in"),
            ("path;label\n", r"must have a column with pictures \(image, .*\), got path;label in"),
            ("path,label\nfiles/0.png,\n", "label must be given for every picture, got none in row 1 of all.csv"),
            ("path,label\nfiles/0.png\n", "label must be given for every picture, got none in row 1 of all.csv"),
            ("path,label,split\nfiles/0.png,cat,exam\n", "split must be one of .*, got 'exam' in row 1 of all.csv"),
            ("path,label\n", "source must hold pictures that can be read, got none of 0"),
            ('path,label\n"' + "x" * 200_000, "source must be a whole file of its kind, got .*: field larger"),
        ],
    )
    def test_manifests_that_cannot_be_used(self, tmp_path, text, sentence):
        files(tmp_path)
        (tmp_path / "all.csv").write_text(text)
        with pytest.raises(InputError, match=sentence):
            read(tmp_path / "all.csv", tmp_path)
        assert not (tmp_path / "table").exists()


class TestTablesWithPictures:
    def test_hugging_face_parquet_folder(self, tmp_path):
        for split, name in (("train", "train-00000-of-00001"), ("validation", "validation-0"), ("test", "test-0")):
            (tmp_path / "pets" / "data").mkdir(parents=True, exist_ok=True)
            pq.write_table(hf_table(of_split(split)), tmp_path / "pets" / "data" / f"{name}.parquet")
        info, table = read(tmp_path / "pets", tmp_path)
        assert content(table) == [*of_split("test"), *of_split("train"), *of_split("validation")]
        assert (info.name, info.classes) == ("pets", CLASSES)

    def test_saved_to_disk_by_datasets(self, tmp_path):
        for split in ("train", "test"):
            folder = tmp_path / "pets" / split
            folder.mkdir(parents=True)
            table = hf_table(of_split(split))
            with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
                writer.write_table(table)
            (folder / "cache-1234.arrow").write_bytes(b"indices")
            (folder / "dataset_info.json").write_text("{}")
        _, table = read(tmp_path / "pets", tmp_path, validation=0.0)
        assert content(table) == [*of_split("test"), *of_split("train")]

    @pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
    def test_arrow_file_with_bytes_and_names(self, tmp_path, kind):
        columns = {name: [p[i] for p in PICTURES] for i, name in enumerate(("image", "label", "split"))}
        table = pa.table(columns | {"image": pa.array(columns["image"], kind)})
        with pa.ipc.new_file(str(tmp_path / "pets.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
        _, read_back = read(tmp_path / "pets.arrow", tmp_path)
        assert content(read_back) == PICTURES
        assert read_back.source(4) == "pets.arrow#5"

    def test_struct_without_bytes_has_a_path(self, tmp_path):
        files(tmp_path)
        image = pa.array([{"bytes": None, "path": f"files/{i}.png"} for i in range(24)])
        columns = {"image": image, "label": [p[1] for p in PICTURES], "split": [p[2] for p in PICTURES]}
        table = pa.table(columns | {"image": image.cast(pa.struct({"bytes": pa.binary(), "path": pa.string()}))})
        pq.write_table(table, tmp_path / "a.parquet")
        assert content(read(tmp_path / "a.parquet", tmp_path)[1]) == PICTURES

    def test_what_cannot_be_used(self, tmp_path):
        whole = hf_table(PICTURES)

        def refused(table, sentence):
            pq.write_table(table, tmp_path / "pets.parquet")
            with pytest.raises(InputError, match=sentence):
                read(tmp_path / "pets.parquet", tmp_path)

        hidden = whole.set_column(1, "label", pa.array([-1] * 24))
        refused(hidden, r"label must be one of the 2 classes or in \[0, 1\], got -1 in row 1 of pets.parquet")
        refused(whole.set_column(1, "label", pa.array([0.5] * 24)), "label must be a name or a whole number, got 0.5")
        refused(whole.set_column(0, "image", pa.array([[1, 2]] * 24)), "column image must hold encoded pictures, paths")
        refused(whole.replace_schema_metadata(huggingface(["x", "x"])), "class names must differ, got 'x' twice")
        refused(
            whole.replace_schema_metadata(huggingface(["x", ""])), "class names must not be empty, got '' for label 1"
        )
        refused(whole.replace_schema_metadata(huggingface(["é", "é"])), "class names must differ, got 'é' twice")
        refused(whole.replace_schema_metadata(huggingface(["fi", "ﬁ"])), "must differ by more than Unicode form")
        (tmp_path / "pets.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(InputError, match="source must be a whole file of its kind"):
            read(tmp_path / "pets.parquet", tmp_path)

    def test_files_must_agree_on_the_classes(self, tmp_path):
        for name, classes in (("train.parquet", CLASSES), ("test.parquet", CLASSES[::-1])):
            (tmp_path / "pets").mkdir(exist_ok=True)
            pq.write_table(hf_table(PICTURES, classes), tmp_path / "pets" / name)
        with pytest.raises(InputError, match="every file must have the same classes"):
            read(tmp_path / "pets", tmp_path)


class TestShards:
    @pytest.mark.parametrize(
        "label", [
            lambda i, name: [("cls", str(i).encode())],
            lambda i, name: [("cls", name.encode())],
            lambda i, name: [("txt", f"{name}\n".encode())],
            lambda i, name: [("json", json.dumps({"label": i}).encode()), ("txt", b"a caption")],
        ],
    )  # fmt: skip
    def test_a_folder_of_shards(self, tmp_path, label):
        for split in ("test", "train", "validation"):
            members = []
            for i, (image, name, _) in enumerate(of_split(split)):
                members += [(f"./{i:04d}.{e}", body) for e, body in label(CLASSES.index(name), name)]
                members += [(f"./{i:04d}.input.png", image), (f"./{i:04d}.notes", b"?")]
            write_shard(tmp_path / "pets" / f"pets-{split}-000.tar", members)
        (tmp_path / "pets" / "classnames.txt").write_text("cat\ndog\n")
        info, table = read(tmp_path / "pets", tmp_path)
        assert content(table) == [*of_split("test"), *of_split("train"), *of_split("validation")]
        assert info.name == "pets"
        assert table.source(0) == "pets-test-000.tar/0000.input.png"

    @pytest.mark.parametrize("ending", ["tar", "tar.gz"])
    def test_a_range_of_shards(self, tmp_path, ending):
        for shard in range(3):
            members = []
            for i, (image, name, _) in enumerate(PICTURES[shard * 8 : shard * 8 + 8]):
                members += [(f"a/{i}.jpg", image), (f"a/{i}.cls", name.encode())]
            write_shard(tmp_path / f"{8 + shard:02d}.{ending}", members)
        _, table = read(f"{tmp_path}/{{08..10}}.{ending}", tmp_path)
        assert [c[:2] for c in content(table)] == [p[:2] for p in PICTURES]

    def test_shards_at_urls(self, tmp_path):
        write_shard(tmp_path / "0.tar", [("0.png", PICTURES[0][0]), ("0.cls", b"cat"), ("1.json", b"{}")])
        fsspec.filesystem("memory").pipe_file("/shards/0.tar", (tmp_path / "0.tar").read_bytes())
        _, table = read("memory://shards/0.tar", tmp_path)
        assert content(table) == [(PICTURES[0][0], "cat", "train")]

    @pytest.mark.parametrize(
        ("members", "sentence"),
        [
            ([("0.png", PICTURES[0][0])], "label must be given for every picture, got none in a.tar/0"),
            (
                [("0.png", PICTURES[0][0]), ("0.json", b"{")],
                "label must be in JSON that can be read, got .* in a.tar/0",
            ),
            ([("0.cls", b"cat")], "source must hold pictures that can be read, got none of 0"),
        ],
    )
    def test_samples_that_cannot_be_used(self, tmp_path, members, sentence):
        write_shard(tmp_path / "a.tar", members)
        with pytest.raises(InputError, match=sentence):
            read(tmp_path / "a.tar", tmp_path)

    def test_a_shard_that_is_cut_short(self, tmp_path):
        write_shard(tmp_path / "a.tar", [("0.png", PICTURES[0][0] * 50), ("0.cls", b"cat")])
        (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1000])
        with pytest.raises(InputError, match=r"source must be whole tar files, got .*: unexpected end of data"):
            read(tmp_path / "a.tar", tmp_path)
        (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
        with pytest.raises(InputError, match=r"source must be whole tar files, got .*: "):
            read(tmp_path / "a.tar", tmp_path)


class TestTorchvision:
    def test_arrays_are_encoded(self, tmp_path):
        raw = tmp_path / "MNIST" / "raw"
        raw.mkdir(parents=True)
        rng = np.random.default_rng(0)
        wanted = []
        for half, count in (("train", 20), ("t10k", 10)):
            pixels, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 10).astype(np.uint8)
            (raw / f"{half}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
            (raw / f"{half}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
            wanted += [(image, label) for image, label in zip(pixels, labels, strict=True)]
        info, table = read(f"torchvision:MNIST:{tmp_path}", tmp_path, validation=0.0)
        assert (info.name, info.classes[3], info.counts["train"], info.counts["test"]) == ("MNIST", "3 - three", 20, 10)
        for i, (pixels, label) in enumerate(wanted):
            assert np.array_equal(np.asarray(decode(table.image(i)))[:, :, 0], pixels)
            assert table.label[i] == label
        assert table.source(20) == "MNIST/test/000000"

    def test_files_keep_their_bytes_and_splits(self, tmp_path):
        for image, label, split in PICTURES:
            folder = tmp_path / "country211" / {"validation": "valid"}.get(split, split) / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{hash(image)}.png").write_bytes(image)
        _, table = read(f"torchvision:Country211:{tmp_path}", tmp_path)
        assert sorted(content(table)) == sorted(PICTURES)

    def test_without_splits(self, tmp_path):
        for i, (image, label, _) in enumerate(PICTURES):
            folder = tmp_path / "eurosat" / "2750" / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.jpg").write_bytes(image)
        info, table = read(f"torchvision:EuroSAT:{tmp_path}", tmp_path)
        assert {c[0] for c in content(table)} == {p[0] for p in PICTURES}
        assert info.counts["test"] > 0

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match=r"that holds torchvision's CIFAR10, got .*, download=True\) fetches it"):
            read(f"torchvision:CIFAR10:{tmp_path}", tmp_path)

    def test_the_names_are_torchvisions(self):
        import torchvision.datasets

        for name in (*places.TRAIN_OR_TEST, *places.SPLIT_ARGUMENTS, *places.WITHOUT_SPLITS):
            assert hasattr(torchvision.datasets, name)


class TestHub:
    COMMIT = "0123456789" * 4

    @pytest.fixture
    def asked(self, monkeypatch, tmp_path):
        """Stand in for the hub: one data set, kept as Parquet."""
        import huggingface_hub

        asked = []

        def info(self, name, revision, timeout):
            asked.append((name, revision))
            if name != "ada/pets":
                raise OSError("404: no such\nrepository")
            return type("Info", (), {"sha": TestHub.COMMIT})

        def download(name, *, repo_type, revision, allow_patterns):
            asked.append((name, repo_type, revision, allow_patterns))
            folder = tmp_path / "hub" / revision
            (folder / "data").mkdir(parents=True)
            pq.write_table(hf_table(PICTURES), folder / "data" / "train-0.parquet")
            return str(folder)

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return asked

    def test_a_data_set_by_its_name(self, asked, tmp_path):
        info, table = read("hf:ada/pets", tmp_path)
        assert [c[:2] for c in content(table)] == [p[:2] for p in PICTURES]
        assert (info.name, info.revision) == ("pets", self.COMMIT)
        assert asked == [("ada/pets", None), ("ada/pets", "dataset", self.COMMIT, None)]

    def test_a_part_of_it_at_a_revision(self, asked, tmp_path):
        assert read("hf:ada/pets#data@v1", tmp_path)[0].revision == self.COMMIT
        assert asked == [("ada/pets", "v1"), ("ada/pets", "dataset", self.COMMIT, ["data", "data/**"])]
        asked.clear()
        assert hub.pinned(parse(f"hf:ada/pets@{self.COMMIT}")).revision == self.COMMIT
        assert asked == []

    def test_what_is_not_there(self, asked, tmp_path):
        with pytest.raises(InputError, match="got 'bob/pets' at revision 'main': 404: no such repository"):
            read("hf:bob/pets", tmp_path)
        with pytest.raises(InputError, match="source must name a path in ada/pets, got 'nowhere', which is not there"):
            read("hf:ada/pets#nowhere", tmp_path)

    def test_a_hub_that_is_away(self, monkeypatch, tmp_path):
        import huggingface_hub

        monkeypatch.setattr(hub, "PATIENCE", 0.1)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: __import__("time").sleep(1))
        with pytest.raises(InputError, match=r"got 'ada/pets' at revision 'main': no answer in 0\.1 s"):
            read("hf:ada/pets", tmp_path)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere", "source must be 'digits', a folder or a file, got 'nowhere', which is not there"),
        ("nowhere.csv", "source must be 'digits', a folder or a file, got 'nowhere.csv', which is not there"),
        ("{0..2}.tar", "got '1.tar', which is not there"),
        ("notes.txt", r"source must be a folder or end in one of \.csv, .*\.dvc, got 'notes.txt'"),
        ("s3://bucket/pictures", r"source must be a folder or end in one of .*, got 's3://bucket/pictures'"),
        ("gopher://host/a.csv", "source must be a URL that can be read here, got 'gopher://host/a.csv': Protocol not"),
        ("torchvision:CIFAR10", "source must be like torchvision:NAME:ROOT, got 'torchvision:CIFAR10'"),
        ("torchvision:Cifar:.", "source must be one of CIFAR10, .*, got 'Cifar'"),
        ("torchvision:CIFAR10:nowhere", "with a folder for ROOT, got 'nowhere'"),
        ("hf:pets", "source must be like hf:OWNER/NAME, and then perhaps #PATH and @REVISION, got 'hf:pets'"),
        ("dvc:repository", "source must be like dvc:REPOSITORY#PATH, and then perhaps @REVISION, got 'dvc:repository'"),
        ("dvc:nowhere#data", "source must be a DVC repository or pointer that is there, got 'nowhere'"),
        (
            "dvc:https://ada:s@cret@host/pets.git#data",
            "source must be without a password, .*, got 'dvc:https://host/pets.git#data'",
        ),
        ("dvc:https://ada:secret@host/pets.git", "source must be like dvc:.*, got 'dvc:https://host/pets.git'"),
        ("nowhere.dvc", "source must be a DVC repository or pointer that is there, got 'nowhere.dvc'"),
    ],
)
def test_what_is_refused_before_any_work(tmp_path, monkeypatch, source, sentence):
    monkeypatch.chdir(tmp_path)
    for name in ("0.tar", "2.tar", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=sentence):
        IngestConfig(source=source)


def test_the_early_check_imports_nothing_slow():
    script = (
        "import sys; from secateur.dataset.sources import IngestConfig; IngestConfig('torchvision:MNIST:/'); "
        "print([m for m in ('torch', 'torchvision', 'huggingface_hub', 'dvc', 'sklearn') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_repository_with_an_at_sign():
    found = parse("dvc:git@host.org:ada/pets.git#data/v1@main")
    assert (found.place, found.inside, found.revision) == ("git@host.org:ada/pets.git", "data/v1", "main")
    assert parse("dvc:https://host:8080#data@main").place == "https://host:8080"
    assert places.absolute("dvc:git@host.org:ada/pets.git#data@main") == "dvc:git@host.org:ada/pets.git#data@main"


@pytest.mark.parametrize("module", [places, source, rows])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_splits_in_names():
    names = ["train.parquet", "a/VAL-0.tar", "default/test/0000.parquet", "latest/contest.tar", "dev/x.tar"]
    assert [split_in(name) for name in names] == ["train", "validation", "test", "", "validation"]


class TestStates:
    def test_of_a_manifest_and_its_pictures(self, tmp_path):
        files(tmp_path)
        (tmp_path / "all.csv").write_text(whole_manifest() + "memory://far/0.png,cat,train\nfiles/gone.png,cat,train\n")
        before = list(states(str(tmp_path / "all.csv")))
        assert len(before) == 1 + 24 + 1
        assert before == list(states(str(tmp_path / "all.csv")))
        (tmp_path / "files" / "3.png").write_bytes(b"other")
        changed = [a for a, b in zip(before, states(str(tmp_path / "all.csv")), strict=True) if a != b]
        assert [line.split("\t")[0] for line in changed] == [str(tmp_path / "files" / "3.png")]

    def test_of_urls(self):
        memory = fsspec.filesystem("memory")
        memory.pipe_file("/changing/a.tar", b"1")
        (before,) = states("memory://changing/a.tar")
        assert [before] == list(states("memory://changing/a.tar"))
        memory.pipe_file("/changing/a.tar", b"22")
        assert [before] != list(states("memory://changing/a.tar"))
        with pytest.raises(InputError, match=r"source must be a file that can be read, got 'memory://gone/a.tar'"):
            list(states("memory://gone/a.tar"))

    def test_of_folders_and_of_what_has_revisions(self, tmp_path):
        files(tmp_path / "pets")
        (tmp_path / "pets" / "files" / "gone.png").symlink_to("nowhere")
        assert len(list(states(str(tmp_path / "pets")))) == 25
        assert len(list(states(f"torchvision:MNIST:{tmp_path}"))) == 25
        assert list(states("digits")) == list(states("hf:ada/pets")) == list(states(f"dvc:{tmp_path}#data@main")) == []
