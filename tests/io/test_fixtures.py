"""Files of other programs, against values read from them independently."""

import numpy as np
import pytest

from morphem.data.images import Images
from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.io import mrc, pickles, star
from morphem.physics.ctf import ctf
from morphem.physics.lattice import Lattice

STARS = [
    "FinalRefinement-OriginalParticles-PfCRT.star", "relion31.6opticsgroups.star", "relion5.star", "relion31.star",
    "relion31.v2.star", "empiar_10076_7.star", "toy_projections.star", "sta_testing_bin8.star",
]  # fmt: skip


def shift_px(particles):
    return particles.shift_A_n2 / particles.pixel_A_n[:, None]


def ctf_columns(particles):
    """The nine columns of cryoDRGN's ctf.pkl."""
    c = particles.ctf
    angles = np.degrees([c.astigmatism_rad_n, c.phase_shift_rad_n])
    box_n = np.full(len(particles), particles.box)
    first = [box_n, particles.pixel_A_n, c.defocus_u_A_n, c.defocus_v_A_n, angles[0], c.voltage_kV_n]
    return np.stack([*first, c.cs_mm_n, c.amplitude_contrast_n, angles[1]], 1)


def test_01_cryosparc(fixtures):
    particles = Particles.read(fixtures / "cryosparc_P12_J24_001_particles.cs")
    rotation_n33, shift_n2 = pickles.read(fixtures / "pose.cs.pkl")
    assert (len(particles), len(particles.stacks), particles.box) == (2019, 50, 180)
    np.testing.assert_allclose(particles.pixel_A_n, 2.95, rtol=1e-6)
    np.testing.assert_allclose(particles.rotation_n33, rotation_n33, rtol=0, atol=1e-6)
    np.testing.assert_allclose(shift_px(particles) / 180, shift_n2, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ctf_columns(particles), pickles.read(fixtures / "ctf2.pkl"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(particles.rotation_n33[0, 0], [0.581630, -0.377304, -0.720658], atol=1e-6)
    np.testing.assert_allclose(particles.shift_A_n2[0], [33.43641, -5.39297], atol=1e-5)
    first = [180, 2.95, 45591.37, 45309.79, -78.1311, 200, 2, 0.07, 0]
    np.testing.assert_allclose(ctf_columns(particles)[0], first, rtol=1e-6, atol=1e-5)


def test_cryosparc_comes_back_whole(fixtures, tmp_path):
    path = fixtures / "cryosparc_P12_J24_001_particles.cs"
    Particles.read(path).write(tmp_path / "a.cs")
    before, after = np.load(path), np.load(tmp_path / "a.cs")
    assert (before.dtype, before.tobytes()) == (after.dtype, after.tobytes())


def test_01_relion_30(fixtures):
    path = fixtures / "FinalRefinement-OriginalParticles-PfCRT.star"
    particles = Particles.read(path, box=300, amplitude_contrast=0.1)
    rotation_n33, shift_n2 = pickles.read(fixtures / "pose.star.pkl")
    assert len(particles) == 5
    np.testing.assert_allclose(particles.pixel_A_n, 1.035)
    np.testing.assert_allclose(particles.rotation_n33, rotation_n33, rtol=0, atol=1e-12)
    np.testing.assert_allclose(shift_px(particles) / 300, shift_n2, rtol=1e-12)
    np.testing.assert_allclose(shift_px(particles)[0], [-0.14063, -0.04688])
    np.testing.assert_allclose(ctf_columns(particles), pickles.read(fixtures / "ctf1.pkl"), rtol=1e-6)
    with pytest.raises(InputError, match="no rlnAmplitudeContrast"):
        Particles.read(path, box=300)


def test_01_six_optics_groups(fixtures):
    particles = Particles.read(fixtures / "relion31.6opticsgroups.star")
    assert (len(particles), particles.box) == (139, 196)
    assert np.bincount(particles.optics_n).tolist() == [48, 29, 5, 7, 26, 24]
    assert ((particles.pixel_A_n == 1.25).sum(), (particles.pixel_A_n == 1.24).sum()) == (84, 55)
    np.testing.assert_allclose(particles.ctf.cs_mm_n, np.where(particles.optics_n == 3, 2.6, 2.7))
    assert particles.optics_n[0] == 5
    np.testing.assert_allclose(shift_px(particles)[0], [10.627643, -2.573608], atol=1e-6)
    np.testing.assert_allclose(particles.rotation_n33[0, 0], [-0.846571, 0.525917, -0.082034], atol=1e-6)


def test_18_beam_tilt_of_a_real_table_is_one_notice(fixtures):
    particles = Particles.read(fixtures / "relion31.6opticsgroups.star")
    assert len(particles.notices) == 1 and "rlnBeamTiltX" in particles.notices[0]


def test_01_relion_5(fixtures):
    particles = Particles.read(fixtures / "relion5.star")
    assert (len(particles), len(particles.stacks), particles.box) == (17, 2, 448)
    np.testing.assert_allclose(particles.pixel_A_n, 0.89)
    assert (set(particles.ctf.voltage_kV_n), set(particles.ctf.cs_mm_n)) == ({100.0}, {1.6})
    np.testing.assert_allclose(shift_px(particles)[0], [-3.512112, -1.584618], atol=1e-6)
    np.testing.assert_allclose(particles.rotation_n33[0, 0], [-0.354664, -0.810625, 0.465941], atol=1e-6)


def test_01_relion_31_in_either_order_of_blocks(fixtures):
    a, b = (Particles.read(fixtures / name) for name in ("relion31.star", "relion31.v2.star"))
    assert (len(a), a.box, set(a.pixel_A_n), set(a.ctf.cs_mm_n)) == (5, 256, {2.806}, {0.01})
    np.testing.assert_array_equal(ctf_columns(a), ctf_columns(b))
    np.testing.assert_array_equal(a.rotation_n33, b.rotation_n33)
    np.testing.assert_array_equal(a.shift_A_n2, b.shift_A_n2)
    assert a.image_names == b.image_names


def test_01_empiar_10076(fixtures):
    with pytest.raises(InputError, match="rlnAngleRot, .*expected poses"):
        Particles.read(fixtures / "empiar_10076_7.star")
    from_star = Particles.read(fixtures / "empiar_10076_7.star", require_poses=False)
    from_cs = Particles.read(fixtures / "empiar_10076_7.cs", require_poses=False)
    assert (len(from_star), from_star.box, from_cs.box) == (7, 320, 320)
    np.testing.assert_allclose(from_star.pixel_A_n, 1.309998, atol=1e-6)
    np.testing.assert_allclose(ctf_columns(from_star), ctf_columns(from_cs), rtol=1e-6)
    assert from_star.notices == ("no rlnPhaseShift: taken as 0",)
    pixels = mrc.open_stack(fixtures / "empiar_10076_7.mrc").images_nyx
    assert pixels.shape == (7, 320, 320)
    np.testing.assert_array_equal(Images(from_star).read(np.array([6, 2])), -pixels[[6, 2]])


def test_01_toy_projections(fixtures):
    poses, path = fixtures / "toy_rot_zerotrans.pkl", fixtures / "toy_projections.mrcs"
    plain = Particles.read(path, poses=poses, no_ctf=True)
    assert (len(plain), plain.box, plain.notices) == (1000, 30, (f"pixel size 1 Å taken from {path}",))
    np.testing.assert_allclose(plain.rotation_n33, pickles.read(poses)[0], atol=1e-6)
    assert "blank" in Images(plain).notices[0]
    with_ctf = Particles.read(fixtures / "toy_projections.star", poses=poses, pixel_A=1)
    np.testing.assert_allclose(with_ctf.ctf.phase_shift_rad_n, np.pi / 2)
    low, high = ctf(with_ctf.ctf, with_ctf.pixel_A_n, Lattice.disc(30).k_k2, 30).aminmax()
    assert -0.998 < low <= high < -0.9949
    some = np.array([999, 0, 500])
    np.testing.assert_array_equal(Images(plain).read(some), -Images(with_ctf).read(some))


def test_01_a_tilt_series_has_its_rows(fixtures):
    assert len(star.read(fixtures / "sta_testing_bin8.star")[""]) == 219


def test_10_a_tilt_series_is_refused(fixtures):
    with pytest.raises(InputError, match="a tilt series"):
        Particles.read(fixtures / "sta_testing_bin8.star")


@pytest.mark.parametrize("name", STARS)
def test_03_every_token_of_other_programs_is_the_same_after_rewriting(fixtures, tmp_path, name):
    def tokens(path):
        lines = [line.split(" #")[0] for line in path.read_text().splitlines() if not line.startswith("#")]
        return [token for line in lines for token in line.split()]

    star.write(tmp_path / name, star.read(fixtures / name))
    assert tokens(tmp_path / name) == tokens(fixtures / name)
