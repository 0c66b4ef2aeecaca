import pytest

from imgcls.data import catalog
from imgcls.data.catalog import get_dataset, read_datasets
from imgcls.data.dataset import SerializedRecords, StoredRecords, SubsetRecords
from imgcls.data.shards.pack import pack_dataset
from imgcls.data.split import parse_part, part_names

COUNTS = {"blue": 10, "green": 5, "red": 1}


@pytest.fixture
def images(tmp_path, write_folder):
    return f"folder:{write_folder(tmp_path / 'images', COUNTS)}"


def ids(dataset):
    return [record["image_id"] for record in dataset.records]


def by_class(dataset):
    names = [dataset.classes[record["label"]] for record in dataset.records]
    return {name: names.count(name) for name in COUNTS}


def test_the_parts_complement_each_other_and_each_class_has_its_share(images):
    whole, rest, held_out = (get_dataset(f"{images}{part}") for part in ("", "@0.8", "@-0.2"))
    assert sorted(ids(rest) + ids(held_out)) == sorted(ids(whole))
    assert by_class(held_out) == {"blue": 2, "green": 1, "red": 0}, "a class keeps at least one image for training"
    assert rest.classes == held_out.classes == whole.classes
    assert ids(rest) == [i for i in ids(whole) if i in ids(rest)], "the order is that of the whole set"


def test_the_choice_depends_on_seed_class_and_id_only(images, tmp_path, write_folder):
    held_out = ids(get_dataset(f"{images}@-0.4,3"))
    assert ids(get_dataset(f"{images}@-0.4,4")) != held_out
    assert set(ids(get_dataset(f"{images}@-0.2,3"))) < set(held_out)
    elsewhere = write_folder(tmp_path / "elsewhere", {**COUNTS, "aqua": 7})
    assert [i for i in ids(get_dataset(f"folder:{elsewhere}@-0.4,3")) if not i.startswith("aqua")] == held_out


def test_the_choice_never_changes(tmp_path, write_folder):
    """A run that is resumed by a later version must not train on images that were held out."""
    folder = write_folder(tmp_path / "fixed", {"a": 6, "b": 6})
    assert ids(get_dataset(f"folder:{folder}@-0.34,1")) == FIXED


FIXED = ["a/0.png", "a/2.png", "b/1.png", "b/4.png"]


@pytest.mark.parametrize("share", ["0.1", "0.3", "0.25", "0.9", ".5"])
def test_rounding_leaves_no_image_out_and_takes_none_twice(tmp_path, write_folder, share):
    folder = write_folder(tmp_path / "many", {"a": 15, "b": 5, "c": 2})
    kept, held_out = part_names(f"folder:{folder}", float(share), 0)
    parts = [ids(get_dataset(name)) for name in (kept, held_out)]
    assert len(set(parts[0] + parts[1])) == len(parts[0]) + len(parts[1]) == 22


def test_multi_label_images_count_for_their_rarest_class(tmp_path):
    rows = [f"{n}.png,common" for n in range(8)] + [f"{n}.png,common;rare" for n in range(8, 12)] + ["12.png,"]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,labels", *rows]))
    held_out = get_dataset(f"csv:{tmp_path}/labels.csv@-0.5")
    rare = held_out.classes.index("rare")
    assert sum(rare in record["labels"] for record in held_out.records) == 2
    assert len(held_out.records) == 2 + 4


def test_stored_records_are_not_copied(images, tmp_path):
    """Shards and JSON columns: the parts are views, and a shard's samples still follow each other."""
    pack_dataset(images, str(tmp_path / "packed"), short_side=40, shard_size=4000)
    name = f"shards:{tmp_path}/packed"
    whole = get_dataset(name)
    rest, held_out = read_datasets([f"{name}@0.8"], [f"{name}@-0.2"]).train[0], get_dataset(f"{name}@-0.2")
    assert isinstance(rest.records, SubsetRecords) and isinstance(rest.records, StoredRecords)
    assert sorted(ids(rest) + ids(held_out)) == sorted(ids(whole))
    assert len(whole.records.shard_sizes) > 1
    assert (rest.records.shard_sizes + held_out.records.shard_sizes).tolist() == whole.records.shard_sizes.tolist()
    assert rest.records.label_counts() + held_out.records.label_counts() == whole.records.label_counts()
    assert sorted(ids(get_dataset(f"{images}@-0.2"))) == sorted(ids(held_out))


def test_both_parts_of_a_run_come_from_one_reading(images, monkeypatch):
    read, original = [], catalog.read_folder
    monkeypatch.setattr(catalog, "read_folder", lambda *args, **kwargs: read.append(args) or original(*args, **kwargs))
    datasets = read_datasets([f"{images}@0.8"], [f"{images}@-0.2"])
    assert len(read) == 1
    assert all(isinstance(d.records, SerializedRecords) for d in (*datasets.train, *datasets.test))


def test_a_part_without_images_is_refused(images):
    with pytest.raises(ValueError, match=r"@-0\.01: has no image; .*16 images of folder:.* have 3 classes: hold out"):
        get_dataset(f"{images}@-0.01")
    with pytest.raises(ValueError, match=r"@0\.0: the share after @ is 0\.0; allowed: above 0 and below 1"):
        get_dataset(f"{images}@0.0")


@pytest.mark.parametrize("name", ["folder:a", "folder:me@home", "folder:v@2", "folder:v@1.5", "folder:x@0.5/y"])
def test_other_names_are_those_of_whole_sets(name):
    assert parse_part(name) is None


@pytest.mark.parametrize(("seed", "end"), [(0, ""), (7, ",7")])
def test_names_of_the_two_parts(seed, end):
    names = part_names("folder:a", 0.15, seed)
    assert names == (f"folder:a@0.85{end}", f"folder:a@-0.15{end}")
    parts = [parse_part(name) for name in names]
    assert parts[0].held_out == parts[1].held_out and parts[0].complement and not parts[1].complement
