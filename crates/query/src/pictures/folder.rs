//! Regular files below a folder that no path leaves.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use image::ImageFormat;
use semblance_embed::transform::Limits;

/// A folder, open. Paths below it cannot leave it.
#[derive(Debug)]
pub struct PictureFolder {
    path: PathBuf,
    dir: Dir,
}

/// A picture's file, open.
#[derive(Debug)]
pub struct Picture {
    file: File,
    bytes: u64,
    /// Changes whenever the file does.
    pub version: String,
}

/// Why a picture cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPicture {
    /// There is no such file, or it lies outside of the folder, or it is no regular file.
    #[error("is not in the catalogue's folder")]
    Missing,
    /// The catalogue's folder is not opened: another user or another machine recorded it, or the index was moved.
    #[error("lies in a folder that is recorded for another place, which is not opened")]
    NotOpened,
    /// The file is none of the formats known.
    #[error("is none of the image formats known")]
    NotAPicture,
    /// The file has more bytes than allowed.
    #[error("is too large")]
    TooLarge,
}

impl PictureFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// If it is missing, no folder, or the system refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), dir: Dir::open_ambient_dir(path, ambient_authority())? })
    }

    /// Opens a folder within this one, which no link leads out of it.
    ///
    /// # Errors
    /// As [`Self::open`], and if it lies outside.
    pub fn inner(&self, name: &str) -> io::Result<Self> {
        Ok(Self { path: self.path.join(name), dir: self.dir.open_dir(name)? })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a regular file at a relative path.
    pub fn has(&self, relative: &Path) -> bool {
        self.dir.metadata(relative).is_ok_and(|about| about.is_file())
    }

    /// Opens the regular file at a relative path, without ever waiting: not for the other end of a pipe, nor for a device.
    ///
    /// # Errors
    /// [`NoPicture::Missing`].
    pub fn picture(&self, relative: &Path) -> Result<Picture, NoPicture> {
        // Opening a device can have effects of its own.
        if !self.has(relative) {
            return Err(NoPicture::Missing);
        }
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = self.dir.open_with(relative, &options).map_err(|_| NoPicture::Missing)?;
        // What was opened counts, whatever was there before.
        let about = file.metadata().map_err(|_| NoPicture::Missing)?;
        if !about.is_file() {
            return Err(NoPicture::Missing);
        }
        let changed = about.modified().ok().map(cap_std::time::SystemTime::into_std);
        let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let version = format!("{:x}-{:x}", changed.as_nanos(), about.len());
        Ok(Picture { file, bytes: about.len(), version })
    }
}

impl Picture {
    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The content of the file and its media type.
    ///
    /// # Errors
    /// [`NoPicture::TooLarge`] beyond [`Limits::max_file_bytes`], [`NoPicture::NotAPicture`] where the content is no picture,
    /// [`NoPicture::Missing`] if it cannot be read.
    pub fn read(self, limits: &Limits) -> Result<(Vec<u8>, &'static str), NoPicture> {
        let limit = limits.max_file_bytes;
        if self.bytes > limit {
            return Err(NoPicture::TooLarge);
        }
        let mut bytes = Vec::with_capacity(self.bytes as usize);
        // Files under /proc report a size of 0, and other files can grow.
        self.file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|_| NoPicture::Missing)?;
        if bytes.len() as u64 > limit {
            return Err(NoPicture::TooLarge);
        }
        let known = [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Gif,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
        ];
        match image::guess_format(&bytes) {
            Ok(format) if known.contains(&format) => Ok((bytes, format.to_mime_type())),
            _ => Err(NoPicture::NotAPicture),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png() -> Vec<u8> {
        let mut bytes = io::Cursor::new(Vec::new());
        image::RgbImage::new(3, 2).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn only_regular_files_below_the_folder_are_read() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("catalogue");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/1.png"), png()).unwrap();
        std::fs::write(root.join("notes.txt"), "no picture").unwrap();
        std::fs::write(home.path().join("secret.png"), png()).unwrap();
        let folder = PictureFolder::open(&root).unwrap();
        let limits = Limits::default();
        let read =
            |key: &str| folder.picture(Path::new(key)).and_then(|p| p.read(&limits)).map(|(_, kind)| kind);
        assert_eq!(read("a/1.png"), Ok("image/png"));
        assert_eq!(read("a/../a/1.png"), Ok("image/png"));
        assert_eq!(read("notes.txt"), Err(NoPicture::NotAPicture));
        let absolute = home.path().join("secret.png");
        let inside = root.join("a/1.png");
        for outside in [
            "../secret.png",
            "a/../../secret.png",
            absolute.to_str().unwrap(),
            inside.to_str().unwrap(),
            "a",
            "",
            "/etc/passwd",
            "/proc/kmsg",
        ] {
            assert_eq!(read(outside), Err(NoPicture::Missing), "{outside}");
        }
        let small = Limits { max_file_bytes: 10, ..limits };
        let large = folder.picture(Path::new("a/1.png")).and_then(|picture| picture.read(&small));
        assert_eq!(large, Err(NoPicture::TooLarge));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_inside_and_pipes_are_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("catalogue");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/1.png"), png()).unwrap();
        std::fs::write(home.path().join("secret.png"), png()).unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link(&home.path().join("secret.png"), "link.png");
        link(home.path(), "folder");
        link(Path::new("a/1.png"), "inner.png");
        link(Path::new("/dev/zero"), "endless.png");
        link(Path::new("/proc/kmsg"), "log.png");
        assert!(std::process::Command::new("mkfifo").arg(root.join("pipe.png")).status().unwrap().success());
        let folder = PictureFolder::open(&root).unwrap();
        let read = |key: &str| folder.picture(Path::new(key)).and_then(|p| p.read(&Limits::default()));
        assert_eq!(read("inner.png").unwrap().1, "image/png");
        for name in ["link.png", "folder/secret.png", "endless.png", "log.png", "pipe.png"] {
            assert_eq!(read(name).unwrap_err(), NoPicture::Missing, "{name}");
            assert!(!folder.has(Path::new(name)), "{name}");
        }
        assert!(folder.inner("folder").is_err() && folder.inner("a").is_ok());
        // Named from the root of the file system, the kernel's log is a regular file that would be waited for.
        let all = PictureFolder::open(Path::new("/")).unwrap();
        assert!(all.picture(Path::new("proc/kmsg")).and_then(|p| p.read(&Limits::default())).is_err());
    }
}
