"""Colours by meaning: distinguished by everybody, readable on both grounds; and the brand file."""

import itertools

import pytest
from lazily import Lazily
from tracereel.film import theme
from tracereel.film.lettering import width, wrap
from tracereel.film.settings import AA, Settings, SettingsError, contrast, contrast_of, read_brand

coloraide = Lazily("coloraide")

PHASES = (theme.PREFILL, theme.DECODE, theme.FINISHED)
POLICIES = (theme.STATIC, theme.SAME_POSITION, theme.CONTINUOUS)
ENGINES = (theme.STATIC, theme.TRANSFORMERS, theme.VLLM, theme.CONTINUOUS)
SLOTS = (theme.IDLE_SLOT, theme.PANEL)
SIGHT = (None, "protan", "deutan", "tritan")


def seen(colour, palette, sight):
    """As it is seen: simulated after Machado, Oliveira and Fernandes (2009), severity 1."""
    made = coloraide.Color("srgb", palette.rgb(colour))
    return made if sight is None else made.filter(sight, method="machado").clip()


@pytest.mark.parametrize("palette", theme.PALETTES.values(), ids=lambda palette: palette.name)
@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("group", "least"), [(PHASES, 8.0), (POLICIES, 8.0), (ENGINES, 8.0), (theme.REQUESTS, 8.0), (SLOTS, 8.0)], ids=str
)
def test_colours_that_mean_different_things_look_different(palette, sight, group, least):
    """CIEDE2000; 2.3 is a difference that is just seen."""
    for one, other in itertools.combinations(group, 2):
        difference = seen(one, palette, sight).delta_e(seen(other, palette, sight), method="2000")
        assert difference >= least, (palette.name, sight, one, other, round(difference, 1))


@pytest.mark.parametrize("palette", theme.PALETTES.values(), ids=lambda palette: palette.name)
def test_an_idle_slot_is_no_request(palette):
    for sight, request in itertools.product(SIGHT, theme.REQUESTS):
        difference = seen(theme.IDLE_SLOT, palette, sight).delta_e(seen(request, palette, sight), method="2000")
        assert difference >= 8, (sight, request)


def test_contrast_is_wcags():
    assert contrast_of((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    for palette in theme.PALETTES.values():
        for role in (
            "text",
            "dim",
            "accent",
            "prefill",
            "decode",
            "finished",
            "static",
            "same_position",
            "transformers",
        ):
            ground = coloraide.Color(palette.codes["ground"])
            want = coloraide.Color(palette.codes[role]).contrast(ground, method="wcag21")
            assert contrast(palette, role, "ground") == pytest.approx(want, rel=1e-3)
            assert want >= AA, (palette.name, role)


def test_a_brand_in_a_few_lines(tmp_path):
    (tmp_path / "logo.png").write_bytes(b"any")
    path = tmp_path / "brand.toml"
    path.write_text('title = "Our engine"\nlogo = "logo.png"\naccent = "#ffd000"\nend = ["our.example"]\n')
    brand = read_brand(path)
    assert brand.title.text == "Our engine"
    assert brand.logo == tmp_path / "logo.png"
    assert brand.palette.rgb(theme.ACCENT) == theme.rgb_of("#ffd000")
    assert [line.text for line in brand.end] == ["our.example"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('title = "3.4x faster"', "title: '3.4x faster' holds a digit that is not measured"),
        ('claim = "Twice as fast"', "claim: 'Twice as fast' holds a number in words that is not measured"),
        ('accent = "#222222"', "accent: #222222 has a contrast of 1."),
        ('accent = "red"', "accent: 'red' is not a colour"),
        ('theme = "mauve"', "theme: 'mauve' is not one of dark, light"),
        ('logo = "../logo.png"', "outside the brand file's folder"),
        ('logo = "/etc/hostname"', "outside the brand file's folder"),
        ('fonts = ["../face.ttf"]', "outside the brand file's folder"),
        ('logo = "nowhere.png"', "no such file"),
        ('colour = "x"', "unknown field `colour`"),
        ("title = ", "brand.toml: "),
        ('title = "a\\u001bb"', "printable"),
    ],
)
def test_a_broken_brand_is_one_line(tmp_path, content, said):
    path = tmp_path / "brand.toml"
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_brand(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_come_from_the_environment(monkeypatch):
    for name, value in {"THEME": "light", "CAPTIONS": "off"}.items():
        monkeypatch.setenv(f"TRACEREEL_{name}", value)
    settings = Settings.from_environment()
    assert settings.palette.name == "light"
    assert not settings.captions
    monkeypatch.setenv("TRACEREEL_LANGUAGE", "tlh")
    with pytest.raises(SettingsError, match="'tlh' is not one of"):
        Settings.from_environment()


def test_a_last_line_is_not_left_with_a_word():
    room = width(" ".join(["word"] * 8), theme.CAPTION) + 1
    for count in range(1, 25):
        text = " ".join(["word"] * count)
        lines = wrap(text, theme.CAPTION, room)
        assert " ".join(lines) == text
        assert len(lines) == -(-count // 8), "as few lines as there can be"
        assert all(width(line, theme.CAPTION) <= room for line in lines)
        if len(lines) > 1:
            assert len(lines[-1].split()) > 2


def test_a_number_and_its_unit_stand_in_one_line():
    text = "Longest gap: 303 to 419 ms whole, in 5 s of 48 values"
    pairs = [("419", "ms"), ("5", "s")]
    for room in range(150, 900, 10):
        lines = wrap(text, theme.CAPTION, room)
        assert not any(
            a.endswith(number) and b.startswith(unit) for a, b in itertools.pairwise(lines) for number, unit in pairs
        )


def test_a_link_out_of_the_brands_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"any")
    own = tmp_path / "brand"
    own.mkdir()
    (own / "logo.png").symlink_to(tmp_path / "secret.png")
    (own / "brand.toml").write_text('logo = "logo.png"\n')
    with pytest.raises(SettingsError, match=r"logo: 'logo\.png' is outside the brand file's folder"):
        read_brand(own / "brand.toml")
