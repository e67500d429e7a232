use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn directories_and_files_get_owner_only_permissions() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let directory = home.path().join("a/b");
    disk.create_directory(&directory).unwrap();
    assert_eq!((mode(&directory), mode(directory.parent().unwrap())), (0o700, 0o700));
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    disk.create_directory(&directory).unwrap();
    assert_eq!(mode(&directory), 0o700);

    let path = directory.join("file");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    disk.open_append(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    disk.replace(&path, b"new").unwrap();
    assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"new".to_vec()));
}

#[test]
fn symlink_instead_of_a_directory_or_file_is_rejected() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let real = home.path().join("real");
    disk.create_directory(&real).unwrap();
    fs::write(real.join("victim"), "precious").unwrap();
    let link = home.path().join("link");
    symlink(&real, &link).unwrap();
    let error = disk.create_directory(&link).unwrap_err().to_string();
    assert!(error.ends_with("is a symlink, not a directory"), "{error}");

    let planted = real.join("planted");
    symlink(real.join("victim"), &planted).unwrap();
    for error in [disk.open_append(&planted).unwrap_err(), disk.read(&planted).unwrap_err()] {
        assert!(error.to_string().ends_with("is a symlink"), "{error}");
    }
    // A symlink at the name of the temporary file is rejected too, and its target stays unchanged.
    symlink(real.join("victim"), real.join("state.new")).unwrap();
    disk.replace(&real.join("state"), b"x").unwrap_err();
    assert_eq!(fs::read(real.join("victim")).unwrap(), b"precious");
}

#[test]
fn directory_lock_is_exclusive_and_released_with_its_holder() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    assert_eq!(holder(home.path()).unwrap(), None);
    let lock = DirectoryLock::take(&disk, home.path()).unwrap();
    assert_eq!(holder(home.path()).unwrap(), Some(format!("codexd (pid {})", std::process::id())));
    let refusal = DirectoryLock::take(&disk, home.path()).unwrap_err().to_string();
    assert!(refusal.contains(&format!("codexd (pid {})", std::process::id())), "{refusal}");
    drop(lock);
    assert_eq!(holder(home.path()).unwrap(), None);
    DirectoryLock::take(&disk, home.path()).unwrap();
}

#[test]
fn set_aside_keeps_earlier_files() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let path = home.path().join("state.json");
    let kept: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|text| {
            fs::write(&path, text).unwrap();
            fs::read_to_string(disk.set_aside(&path).unwrap()).unwrap()
        })
        .collect();
    assert_eq!(kept, ["a", "b", "c"]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3);
}

#[test]
fn shared_directory_keeps_its_permissions_and_symlinks_are_rejected() {
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let path = home.path().join("units/file");
    disk.write_shared(&path, b"one").unwrap();
    fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    disk.write_shared(&path, b"two").unwrap();
    assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o755, 0o600));
    assert_eq!(fs::read(&path).unwrap(), b"two");
    let link = home.path().join("units/link");
    symlink(&path, &link).unwrap();
    let error = disk.write_shared(&link, b"three").unwrap_err().to_string();
    assert!(error.contains("is a symlink"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"two");
}
